// judge answers questions about audit events with code that this project did not write:
// Kubernetes' own decoder and request parser, and the JSON parser of Falco.
//
// It reads requests from standard input and writes one line of JSON for each to standard output,
// in order, until the input ends. A request is a line "<question> <length>" and then so many bytes,
// which may be anything: line feeds, bytes that are no UTF-8.
//
//	decode       an EventList or an Event: does k8s.io/apiserver take it, and give it back equal?
//	requestinfo  {"uri","method"} or {"uri","verb"}: what the API server makes of a request
//	falco        the body of a POST: what Falco's k8saudit plugin loses of it, and reads in it
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

var questions = map[string]func([]byte) any{
	"decode":      func(body []byte) any { return decode(body) },
	"requestinfo": func(body []byte) any { return requestInfo(body) },
	"falco":       func(body []byte) any { return falco(body) },
}

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func serve(from io.Reader, to io.Writer) error {
	in := bufio.NewReaderSize(from, 1<<20)
	out := bufio.NewWriterSize(to, 1<<20)
	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		var question string
		var length int
		if _, err := fmt.Sscanf(line, "%s %d", &question, &length); err != nil {
			return fmt.Errorf("request %q is not \"<question> <length>\": %w", line, err)
		}
		answer, known := questions[question]
		if !known || length < 0 {
			return fmt.Errorf("request %q: no such question", line)
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(in, body); err != nil {
			return fmt.Errorf("reading the %d bytes of a request: %w", length, err)
		}
		if err := answers.Encode(answer(body)); err != nil {
			return fmt.Errorf("writing an answer: %w", err)
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("writing an answer: %w", err)
		}
	}
}
