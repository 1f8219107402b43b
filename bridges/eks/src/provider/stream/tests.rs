use super::*;

fn args(stream: &str, share: Option<&str>) -> StreamArgs {
    StreamArgs {
        stream: Some(stream.to_owned()),
        share_partitions: share.map(str::to_owned),
        catch_up: None,
    }
}

fn access(region: Option<&str>) -> Access {
    Access {
        region: region.map(str::to_owned),
        ..Access::default()
    }
}

#[test]
fn stream_arn_gives_the_region() {
    let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/audit";
    for (told, said) in [
        (None, ""),
        (Some("eu-west-1"), ""),
        (
            Some("eu-central-1"),
            "another one than that of --stream's ARN",
        ),
    ] {
        let mut problems = Problems::default();
        let live =
            args(arn, None).check(&EksConvertOptions::default(), access(told), &mut problems);
        assert!(problems.to_string().contains(said), "{problems}");
        assert_eq!(problems.is_empty(), said.is_empty(), "{problems}");
        assert_eq!(live.access.region.as_deref(), Some("eu-west-1"));
        assert_eq!(live.key, "eu-west-1:111122223333:kinesis:audit");
        assert_eq!(live.shared(), None);
    }
    let mut problems = Problems::default();
    let live = args("audit", Some("true")).check(
        &EksConvertOptions::default(),
        access(Some("eu-west-1")),
        &mut problems,
    );
    assert_eq!(
        live.shared().map(|it| it.name).as_deref(),
        Some("eu-west-1:kinesis:audit")
    );
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn shares_without_a_stream_are_refused() {
    let mut problems = Problems::default();
    let none = StreamArgs {
        stream: Some(" ".to_owned()),
        share_partitions: Some("true".to_owned()),
        catch_up: None,
    };
    assert!(!none.is_given());
    none.check_absent(&mut problems);
    assert!(
        problems.to_string().contains("needs --stream"),
        "{problems}"
    );
}
