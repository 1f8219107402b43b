//! The audit log of a real API server through the dumps and live logs of EKS and AKS: what is
//! delivered is what the API server sent to its own webhook, except for the contracts.

use std::path::Path;

use audit_bridge_tests::apiserver::Release;
use audit_bridge_tests::attacks::carrier::{
    AKS_UNITS_MAX, Carrier, EKS_BYTES_MAX, cut_by_aks, cut_by_eks,
};
use audit_bridge_tests::leaves::Leaves;
use audit_bridge_tests::run;

use super::contracts::{Account, CUT, Case, Cut, DEPTH, DOUBLES, ENCODING, KIND, SIZE};
use super::recording::{self, Native};

/// The lines in a provider's form, and where each was cut.
pub(crate) fn carried(carrier: Carrier, natives: &[Native]) -> Vec<(Vec<u8>, Option<usize>)> {
    let each = natives.iter().map(|native| {
        let line = &native.line;
        match carrier {
            Carrier::Eks if line.len() > EKS_BYTES_MAX => (cut_by_eks(line), Some(EKS_BYTES_MAX)),
            Carrier::Aks if line.len() > AKS_UNITS_MAX[1] => {
                (cut_by_aks(line, AKS_UNITS_MAX[1]), Some(AKS_UNITS_MAX[1]))
            }
            _ => (line.clone(), None),
        }
    });
    each.collect()
}

/// A dump with these records.
fn dump(carrier: Carrier, lines: &[(Vec<u8>, Option<usize>)], to: &Path) {
    let records: Vec<Vec<u8>> = lines.iter().map(|(line, _)| carrier.record(line)).collect();
    let text = match carrier {
        Carrier::Eks => [&b"{\"events\":["[..], &records.join(&b','), b"]}"].concat(),
        _ => records.join(&b'\n'),
    };
    std::fs::write(to, text).unwrap();
}

/// The events of a replayed dump, in order, each with its size.
pub(crate) fn replayed(bridge: &str, flags: &[&str], dump: &Path) -> Vec<(Leaves, usize)> {
    let output = dump.with_extension("out");
    let paths = [dump, &output].map(|path| path.to_str().unwrap().to_owned());
    let args = [
        "replay", &paths[0], "--format", "events", "--output", &paths[1],
    ];
    let ran = run(bridge, &[&args[..], flags].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let text = std::fs::read(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    let lines = text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    lines.map(|line| (Leaves::of(line), line.len())).collect()
}

/// Compares the events in order.
pub(crate) fn judge(
    natives: &[Native],
    lines: &[(Vec<u8>, Option<usize>)],
    ours: &[(Leaves, usize)],
) -> Account {
    assert_eq!(ours.len(), natives.len(), "as many events as records");
    let mut account = Account::default();
    for ((native, (_, cut)), (ours, bytes)) in natives.iter().zip(lines).zip(ours) {
        let case = Case {
            line: &native.line,
            native: &native.sent,
            ours,
            bytes: *bytes,
            cut: cut.map(|cut| Cut::at(&native.line, cut)),
        };
        let named: String = native
            .sent
            .get("/requestURI")
            .unwrap_or_default()
            .chars()
            .take(100)
            .collect();
        account.add(&named, case.contracts());
    }
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dumps_of_real_log_match_what_the_server_sent() {
    for release in Release::judged() {
        let Some(natives) = recording::tour(release).await else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        // Each of these kinds of hostile requests is in the tour, once with a body.
        let whole = [
            (KIND, None),
            (ENCODING, Some(2)),
            (DOUBLES, Some(4)),
            (DEPTH, Some(2)),
            (SIZE, None),
        ];
        let cut = [&whole[..], &[(CUT, None)]].concat();
        // AKS cuts long before anything is too large for us.
        let cut_early = [&whole[..4], &[(CUT, None)]].concat();
        for (carrier, contracts) in [
            (Carrier::Plain("eks"), &whole[..]),
            (Carrier::Plain("gke"), &whole),
            (Carrier::Plain("aks"), &whole),
            (Carrier::Eks, &cut),
            (Carrier::Aks, &cut_early),
        ] {
            let lines = carried(carrier, &natives);
            let path = folder.path().join("dump.json");
            dump(carrier, &lines, &path);
            let ours = tokio::task::block_in_place(|| replayed(carrier.bridge(), &[], &path));
            let account = judge(&natives, &lines, &ours);
            account.assert(&format!("{release:?}, {}", carrier.name()), contracts);
        }
    }
}
