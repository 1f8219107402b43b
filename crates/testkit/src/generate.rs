//! Generates realistic records of all providers for benchmarks, any number of them and all
//! different.

use std::fmt::Write as _;

/// Generates realistic events and records that differ in every run of digits (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Generator(u64);

impl Generator {
    /// A generator; the same seed gives the same events.
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

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

    /// The first part of an event, including responseStatus.
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

    /// An event of about 1.6 KB, without objects.
    pub fn metadata(&mut self) -> String {
        let verb = self.pick(&["get", "update", "patch", "watch"]);
        let code = self.pick(&[200, 201, 404, 409]);
        self.head("Metadata", verb, code) + &self.tail()
    }

    /// A pod as in a client's request or, if `answered`, in the API server's response.
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

    /// An event of about 5 KB: the creation of a pod, with request and response.
    pub fn request_response(&mut self) -> String {
        let mut out = self.head("RequestResponse", "create", 201);
        out.push_str(r#","requestObject":"#);
        self.pod(&mut out, false);
        out.push_str(r#","responseObject":"#);
        self.pod(&mut out, true);
        out + &self.tail()
    }

    /// The event in CloudWatch Logs' form.
    pub fn cloudwatch(&mut self, event: &str) -> String {
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

    /// The event in the form of an AKS diagnostic setting.
    pub fn diagnostic(&mut self, event: &str) -> String {
        format!(
            concat!(
                r#"{{"category":"kube-audit","operationName":"Microsoft.ContainerService/managedClusters/diagnosticLogs/Read","#,
                r#""properties":{{"log":{},"stream":"stdout","pod":"kube-apiserver-{:08x}-{:05x}","containerID":"{:032x}"}},"#,
                r#""resourceId":"/SUBSCRIPTIONS/00000000-1111-2222-3333-444444444444/RESOURCEGROUPS/SHOP/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/SHOP-PROD","#,
                r#""serviceBuild":"na","time":"{}","Cloud":"AzureCloud","Environment":"prod"}}"#,
            ),
            serde_json::Value::from(format!("{event}\n")),
            self.next() % 0xffff_ffff,
            self.next() % 0xf_ffff,
            self.next(),
            self.time(),
        )
    }

    /// GKE's entry for the creation of a pod, about 5 KB, with request and response.
    pub fn entry_pod_create(&mut self) -> String {
        let mut objects = r#","request":{"@type":"core.k8s.io/v1.Pod","#.to_owned();
        let mut pod = String::new();
        self.pod(&mut pod, false);
        objects.push_str(&pod[1..]);
        objects.push_str(r#","response":{"@type":"core.k8s.io/v1.Pod","#);
        pod.clear();
        self.pod(&mut pod, true);
        objects.push_str(&pod[1..]);
        let user = "system:serviceaccount:kube-system:replicaset-controller";
        let resource = "core/v1/namespaces/payments/pods";
        self.entry("activity", "core.v1.pods.create", resource, user, &objects)
    }

    /// GKE's entry for reading a secret, under 2 KB, without objects, from the Data Access log.
    pub fn entry_secret_get(&mut self) -> String {
        let resource = format!("core/v1/namespaces/payments/secrets/{}", self.name());
        let user = "jo@example.com";
        self.entry("data_access", "core.v1.secrets.get", &resource, user, "")
    }

    /// GKE's entry for a kubelet's patch of a pod's status, about 2 KB.
    pub fn entry_status_patch(&mut self) -> String {
        let resource = format!("core/v1/namespaces/payments/pods/{}/status", self.name());
        let objects = format!(
            concat!(
                r#","request":{{"@type":"k8s.io/Patch","metadata":{{"uid":"{}"}},"status":{{"$setElementOrder/conditions":[{{"type":"Initialized"}},{{"type":"Ready"}},{{"type":"ContainersReady"}},{{"type":"PodScheduled"}}],"#,
                r#""conditions":[{{"lastTransitionTime":"{}","message":null,"reason":null,"status":"True","type":"Ready"}},{{"lastTransitionTime":"{}","message":null,"reason":null,"status":"True","type":"ContainersReady"}}],"#,
                r#""containerStatuses":[{{"containerID":"containerd://{:032x}","image":"registry.example.com/app:1.2","lastState":{{}},"name":"app","ready":true,"restartCount":0,"started":true,"state":{{"running":{{"startedAt":"{}"}}}}}}],"phase":"Running"}}}}"#,
            ),
            self.uuid(),
            self.time(),
            self.time(),
            self.next(),
            self.time(),
        );
        let user = "system:node:gke-blue-pool-1-7c1e";
        self.entry(
            "activity",
            "core.v1.pods.status.patch",
            &resource,
            user,
            &objects,
        )
    }

    fn entry(
        &mut self,
        log: &str,
        method: &str,
        resource: &str,
        user: &str,
        objects: &str,
    ) -> String {
        let id = self.uuid();
        format!(
            concat!(
                r#"{{"insertId":"{id}","labels":{{"authorization.k8s.io/decision":"allow","#,
                r#""authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"{name}\" of ClusterRole \"{name}\" to User \"{user}\""}},"#,
                r#""logName":"projects/acme-prod/logs/cloudaudit.googleapis.com%2F{log}","#,
                r#""operation":{{"first":true,"id":"{id}","last":true,"producer":"k8s.io"}},"#,
                r#""protoPayload":{{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","authenticationInfo":{{"principalEmail":"{user}"}},"#,
                r#""authorizationInfo":[{{"granted":true,"permission":"io.k8s.{method}","resource":"{resource}"}}],"#,
                r#""methodName":"io.k8s.{method}","requestMetadata":{{"callerIp":"10.0.{o1}.{o2}","callerSuppliedUserAgent":"kubelet/v1.30.{o2} (linux/amd64) kubernetes/{o1:07x}"}},"#,
                r#""resourceName":"{resource}","serviceName":"k8s.io","status":{{"code":0}}{objects}}},"#,
                r#""receiveTimestamp":"{received}","resource":{{"labels":{{"cluster_name":"blue","location":"europe-west3","project_id":"acme-prod"}},"type":"k8s_cluster"}},"timestamp":"{time}"}}"#,
            ),
            id = id,
            name = self.name(),
            user = user,
            log = log,
            method = method,
            resource = resource,
            o1 = self.next() % 256,
            o2 = self.next() % 256,
            objects = objects,
            received = self.time(),
            time = self.time(),
        )
    }
}
