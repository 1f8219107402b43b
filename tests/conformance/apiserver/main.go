// apiserver: a real etcd and a real kube-apiserver in one process, and a real kube-controller-manager, for tests.
// Everything listens on loopback.
//
//	apiserver serve DIR [kube-apiserver flag…]
//	apiserver controllers KUBECONFIG [kube-controller-manager flag…]
//
// DIR keeps keys, tokens, ports and etcd's data: a second serve of the same DIR is a restart. Both end when their
// standard input does, so that they never outlive the test that started them.
package main

import (
	"io"
	"log"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: apiserver serve DIR [flag…] | apiserver controllers KUBECONFIG [flag…]")
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	switch os.Args[1] {
	case "serve":
		os.Exit(serve(os.Args[2], os.Args[3:]))
	case "controllers":
		command := controllers.NewControllerManagerCommand()
		command.SetArgs(append([]string{
			"--kubeconfig=" + os.Args[2], "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0",
		}, os.Args[3:]...))
		os.Exit(cli.Run(command))
	default:
		log.Fatalf("unknown command %q", os.Args[1])
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
