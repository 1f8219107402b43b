package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
)

// relay takes plain connections at one address and carries their bytes, as they are, to the TLS port at another: a
// test can send what no HTTP client would.
func relay(from, to, caFile string) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(caFile)))
	config := &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}
	listener := must(net.Listen("tcp", from))
	for {
		client := must(listener.Accept())
		go func() {
			defer client.Close()
			server, err := tls.Dial("tcp", to, config)
			if err != nil {
				return
			}
			defer server.Close()
			go func() {
				io.Copy(server, client)
				server.CloseWrite()
			}()
			io.Copy(client, server)
		}()
	}
}
