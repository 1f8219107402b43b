package main

import (
	"encoding/json"
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// requestFacts is what the API server makes of a request before it does anything with it. The
// objectRef of an audit event is made of exactly these.
type requestFacts struct {
	Error             string `json:"error,omitempty"`
	IsResourceRequest bool   `json:"isResourceRequest"`
	Path              string `json:"path"`
	Verb              string `json:"verb"`
	APIGroup          string `json:"apiGroup"`
	APIVersion        string `json:"apiVersion"`
	Namespace         string `json:"namespace"`
	Resource          string `json:"resource"`
	Subresource       string `json:"subresource"`
	Name              string `json:"name"`
}

var requestFactory = &request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

// methods has an HTTP method for each verb: one that leads back to the verb, with the right URI.
var methods = map[string]string{
	"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT",
	"patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE",
	"post": "POST", "put": "PUT", "head": "HEAD", "options": "OPTIONS",
}

func requestInfo(body []byte) (facts requestFacts) {
	var asked struct{ URI, Method, Verb string }
	if err := json.Unmarshal(body, &asked); err != nil {
		facts.Error = "the question: " + err.Error()
		return
	}
	method := asked.Method
	if method == "" {
		method = methods[asked.Verb]
	}
	if method == "" {
		method = "GET"
	}
	// As net/http reads the first line of a request.
	parsed, err := url.ParseRequestURI(asked.URI)
	if err != nil {
		facts.Error = err.Error()
		return
	}
	info, err := requestFactory.NewRequestInfo(&http.Request{Method: method, URL: parsed})
	if err != nil {
		facts.Error = err.Error()
		return
	}
	return requestFacts{
		IsResourceRequest: info.IsResourceRequest,
		Path:              info.Path,
		Verb:              info.Verb,
		APIGroup:          info.APIGroup,
		APIVersion:        info.APIVersion,
		Namespace:         info.Namespace,
		Resource:          info.Resource,
		Subresource:       info.Subresource,
		Name:              info.Name,
	}
}
