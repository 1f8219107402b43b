//! The JSON scanner and native events against sonic-rs, on the same bytes in the same run.
//!
//! `floor` is what any converter must do to an enveloped event: unescape the envelope's string and
//! see that the event in it is valid JSON. Ours does that and everything else of
//! `native::event` besides.

#![allow(missing_docs, reason = "criterion's macros write undocumented items")]
#![expect(clippy::unwrap_used, reason = "a benchmark may stop at once")]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hint::black_box;

use audit_bridge_core::event::json::{Raw, Scanner};
use audit_bridge_core::event::native::{self, Context, Options};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;

/// Enough different events that no branch predictor learns them by heart.
const EVENTS: usize = 512;

/// CloudWatch's `FilteredLogEvent`, as far as sonic-rs has to look.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

/// Makes events that look real and differ in every run of digits (`SplitMix64`).
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }

    fn name(&mut self) -> String {
        let stem = self.pick(&[
            "api",
            "payments-worker",
            "checkout",
            "ingress-nginx-controller",
            "db",
            "cache-warmer",
            "kube-state-metrics",
        ]);
        format!(
            "{stem}-{:x}-{:x}",
            self.next() % 0xfff_ffff,
            self.next() % 0xf_ffff
        )
    }

    fn time(&mut self) -> String {
        format!(
            "2024-05-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            self.next() % 28 + 1,
            self.next() % 24,
            self.next() % 60,
            self.next() % 60,
            self.next() % 1_000_000
        )
    }

    /// An event up to and with its responseStatus.
    fn head(&mut self, level: &str, verb: &str, code: u32) -> String {
        let namespace = self.pick(&["default", "payments", "kube-system", "team-blue-staging"]);
        let resource = self.pick(&["pods", "configmaps", "leases", "endpointslices"]);
        let name = self.name();
        let user = self.pick(&[
            "system:serviceaccount:kube-system:replicaset-controller",
            "system:node:ip-10-0-113-7.eu-central-1.compute.internal",
            "arn:aws:iam::111122223333:role/deployer",
        ]);
        format!(
            concat!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","#,
                r#""auditID":"{id}","stage":"ResponseComplete","#,
                r#""requestURI":"/api/v1/namespaces/{ns}/{res}/{name}?fieldManager=kubectl-client-side-apply&timeout=10s","#,
                r#""verb":"{verb}","user":{{"username":"{user}","uid":"{uid}","#,
                r#""groups":["system:serviceaccounts","system:serviceaccounts:{ns}","system:authenticated"],"#,
                r#""extra":{{"authentication.kubernetes.io/credential-id":["JTI={jti}"],"#,
                r#""authentication.kubernetes.io/node-name":["ip-10-0-{o1}-{o2}.eu-central-1.compute.internal"],"#,
                r#""authentication.kubernetes.io/node-uid":["{nid}"],"#,
                r#""authentication.kubernetes.io/pod-name":["{pod}"],"#,
                r#""authentication.kubernetes.io/pod-uid":["{pid}"]}}}},"#,
                r#""sourceIPs":["10.0.{o1}.{o2}"],"#,
                r#""userAgent":"kube-controller-manager/v1.30.{o2} (linux/amd64) kubernetes/{o1:07x}","#,
                r#""objectRef":{{"resource":"{res}","namespace":"{ns}","name":"{name}","uid":"{oid}","apiVersion":"v1","resourceVersion":"{rv}"}},"#,
                r#""responseStatus":{{"metadata":{{}},"code":{code}}}"#,
            ),
            level = level,
            id = self.uuid(),
            ns = namespace,
            res = resource,
            name = name,
            verb = verb,
            user = user,
            uid = self.uuid(),
            jti = self.uuid(),
            nid = self.uuid(),
            pod = self.name(),
            pid = self.uuid(),
            oid = self.uuid(),
            rv = self.next() % 100_000_000,
            o1 = self.next() % 256,
            o2 = self.next() % 256,
            code = code,
        )
    }

    fn tail(&mut self) -> String {
        format!(
            concat!(
                r#","requestReceivedTimestamp":"{}","stageTimestamp":"{}","#,
                r#""annotations":{{"authorization.k8s.io/decision":"allow","#,
                r#""authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"system:controller:{}\" of ClusterRole \"system:controller\" to ServiceAccount \"controller/kube-system\""}}}}"#,
            ),
            self.time(),
            self.time(),
            self.name(),
        )
    }

    /// About 1.6 KB: no objects.
    fn metadata(&mut self) -> String {
        let verb = self.pick(&["get", "update", "patch", "watch"]);
        let code = self.pick(&[200, 201, 404, 409]);
        self.head("Metadata", verb, code) + &self.tail()
    }

    /// A pod as a client sends it, or as the API server answers.
    fn pod(&mut self, out: &mut String, answered: bool) {
        let app = self.name();
        let _ = write!(
            out,
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"generateName":"{app}-","namespace":"payments","#,
        );
        if answered {
            let _ = write!(
                out,
                r#""name":"{app}","uid":"{}","resourceVersion":"{}","creationTimestamp":"{}","#,
                self.uuid(),
                self.next() % 1_000_000,
                self.time()
            );
        }
        let _ = write!(
            out,
            concat!(
                r#""labels":{{"app":"{0}","pod-template-hash":"{1:x}","tier":"backend"}},"#,
                r#""annotations":{{"prometheus.io/scrape":"true","checksum/config":"{2:016x}"}},"#,
                r#""ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"{0}","uid":"{3}","controller":true,"blockOwnerDeletion":true}}]}},"#,
                r#""spec":{{"volumes":[{{"name":"config","configMap":{{"name":"{0}","defaultMode":420}}}}],"containers":[{{"name":"app","#,
                r#""image":"111122223333.dkr.ecr.eu-central-1.amazonaws.com/{0}:{1:x}","args":["--port=8080","--log-format=json"],"#,
                r#""ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],"env":[{{"name":"MODE","value":"live"}},{{"name":"POD_IP","valueFrom":{{"fieldRef":{{"apiVersion":"v1","fieldPath":"status.podIP"}}}}}}],"#,
                r#""resources":{{"limits":{{"memory":"512Mi"}},"requests":{{"cpu":"100m","memory":"256Mi"}}}},"#,
                r#""volumeMounts":[{{"name":"config","mountPath":"/etc/app","readOnly":true}}],"#,
                r#""livenessProbe":{{"httpGet":{{"path":"/healthz","port":"http","scheme":"HTTP"}},"initialDelaySeconds":{4},"timeoutSeconds":1,"periodSeconds":10,"failureThreshold":3}},"#,
                r#""terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}],"#,
                r#""restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"{0}","securityContext":{{"runAsNonRoot":true}},"#,
                r#""tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],"priority":0,"enableServiceLinks":true}},"#,
                r#""status":{{"phase":"Pending","qosClass":"Burstable"}}}}"#,
            ),
            app,
            self.next() % 0xffff_ffff,
            self.next(),
            self.uuid(),
            self.next() % 30,
        );
    }

    /// About 5 KB: a pod is created, request and response.
    fn request_response(&mut self) -> String {
        let mut out = self.head("RequestResponse", "create", 201);
        out.push_str(r#","requestObject":"#);
        self.pod(&mut out, false);
        out.push_str(r#","responseObject":"#);
        self.pod(&mut out, true);
        out + &self.tail()
    }

    /// The event as CloudWatch Logs answers it.
    fn envelope(&mut self, event: &str) -> String {
        let stamp = 1_716_182_683_000 + self.next() % 100_000_000;
        format!(
            concat!(
                r#"{{"logStreamName":"kube-apiserver-audit-0123456789abcdef0123456789abcdef","timestamp":{},"#,
                r#""message":{},"ingestionTime":{},"eventId":"{:056}"}}"#,
            ),
            stamp,
            serde_json::Value::from(event),
            stamp + 1234,
            self.next(),
        )
    }
}

fn message<'a>(envelope: &'a str) -> Cow<'a, str> {
    let mut scanner = Scanner::new(envelope);
    let mut message = Cow::Borrowed("");
    scanner.open_object().unwrap();
    while let Some(key) = scanner.key().unwrap() {
        if key == "message" {
            message = scanner.string().unwrap();
        } else {
            scanner.value().unwrap();
        }
    }
    scanner.end().unwrap();
    message
}

fn bench(c: &mut Criterion) {
    let mut generator = Generator(7);
    let options = Options::default();
    let annotate = Options {
        annotations: vec![("cluster".to_owned(), "production".to_owned())],
        ..Options::default()
    };
    for (name, events) in [
        (
            "metadata",
            (0..EVENTS)
                .map(|_| generator.metadata())
                .collect::<Vec<_>>(),
        ),
        (
            "request-response",
            (0..EVENTS).map(|_| generator.request_response()).collect(),
        ),
    ] {
        let envelopes: Vec<String> = events.iter().map(|e| generator.envelope(e)).collect();
        let bytes: Vec<Bytes> = events.iter().cloned().map(Bytes::from).collect();
        for (event, envelope) in events.iter().zip(&envelopes) {
            assert_eq!(message(envelope), event.as_str());
            let theirs: Envelope<'_> = sonic_rs::from_str(envelope).unwrap();
            assert_eq!(theirs.message, event.as_str());
        }
        let event_bytes: usize = events.iter().map(String::len).sum();
        let envelope_bytes: usize = envelopes.iter().map(String::len).sum();

        let mut group = c.benchmark_group(format!("validate/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                for event in &events {
                    black_box(Raw::parse(black_box(event)).unwrap());
                }
            });
        });
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for event in &events {
                    black_box(
                        sonic_rs::from_str::<sonic_rs::LazyValue<'_>>(black_box(event)).unwrap(),
                    );
                }
            });
        });
        group.finish();

        let mut group = c.benchmark_group(format!("unescape/{name}"));
        group.throughput(Throughput::Bytes(envelope_bytes as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    black_box(message(black_box(envelope)));
                }
            });
        });
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    black_box(
                        sonic_rs::from_str::<Envelope<'_>>(black_box(envelope))
                            .unwrap()
                            .message,
                    );
                }
            });
        });
        group.finish();

        let context = |options| Context {
            claimed: true,
            record_time: None,
            options,
        };
        let mut group = c.benchmark_group(format!("floor/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        for (label, options) in [("ours", &options), ("ours-annotated", &annotate)] {
            group.bench_function(label, |b| {
                b.iter(|| {
                    for envelope in &envelopes {
                        let text = Bytes::from(message(black_box(envelope)).into_owned());
                        black_box(native::event(&text, &context(options)).unwrap());
                    }
                });
            });
        }
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    let outer: Envelope<'_> = sonic_rs::from_str(black_box(envelope)).unwrap();
                    black_box(
                        sonic_rs::from_str::<sonic_rs::LazyValue<'_>>(&outer.message).unwrap(),
                    );
                }
            });
        });
        group.finish();

        let mut group = c.benchmark_group(format!("native/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        group.bench_function("pass-through", |b| {
            b.iter(|| {
                for text in &bytes {
                    black_box(native::event(black_box(text), &context(&options)).unwrap());
                }
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(1500));
    targets = bench
}
criterion_main!(benches);
