package main

import (
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// serve runs etcd and the API server until the latter ends.
func serve(dir string, flags []string) int {
	dir = must(filepath.Abs(dir))
	check(os.MkdirAll(dir, 0o700))
	in := func(name string) string { return filepath.Join(dir, name) }
	keys(dir)
	keep(in("tokens.csv"), []byte("admin-token,admin,1,\"system:masters\"\nalice-token,alice,2,\"dev\"\n"))
	keep(in("policy.yaml"), []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n  - level: RequestResponse\n"))
	// The same ports after a restart: clients and the relay's users find it again.
	keep(in("port"), []byte(fmt.Sprint(freePort())))
	keep(in("plain-port"), []byte(fmt.Sprint(freePort())))
	port := string(must(os.ReadFile(in("port"))))
	go relay("127.0.0.1:"+string(must(os.ReadFile(in("plain-port")))), "127.0.0.1:"+port, in("ca.crt"))

	etcd, client := store(in("etcd"))
	defer etcd.Close()
	command := app.NewAPIServerCommand()
	command.SetArgs(append([]string{
		"--etcd-servers=" + client,
		"--bind-address=127.0.0.1", "--secure-port=" + port,
		"--endpoint-reconciler-type=none", "--external-hostname=localhost",
		"--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
		"--tls-cert-file=" + in("server.crt"), "--tls-private-key-file=" + in("server.key"),
		"--client-ca-file=" + in("ca.crt"), "--token-auth-file=" + in("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + in("sa.key"), "--service-account-signing-key-file=" + in("sa.key"),
		"--audit-policy-file=" + in("policy.yaml"),
	}, flags...))
	return cli.Run(command)
}

// store starts an etcd and gives it with the address for its clients.
func store(dir string) (*embed.Etcd, string) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort())}
	peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort())}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd := must(embed.StartEtcd(config))
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(time.Minute):
		log.Fatal("etcd is not ready after a minute")
	}
	return etcd, client.String()
}

// keep writes a file that is not there yet.
func keep(file string, data []byte) {
	if _, err := os.Stat(file); err == nil {
		return
	}
	check(os.WriteFile(file, data, 0o600))
}

func freePort() int {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
