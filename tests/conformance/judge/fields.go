package main

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/valyala/fastjson"
)

// The fields that Falco's rules read of an event (ka.*), each as Falco reads it: of a key that
// stands twice the parser gives the first. Fields that are only another name for one of these, or
// answer a question about one (ka.req.volume.hostpath), are left out.

var (
	errNotAvailable = errors.New("not available")
	errWrongType    = errors.New("wrong type")
)

type extractor func(event *fastjson.Value) (any, error)

var falcoExtractors = map[string]extractor{
	"ka.auditid":                             text("auditID"),
	"ka.stage":                               text("stage"),
	"ka.auth.decision":                       text("annotations", "authorization.k8s.io/decision"),
	"ka.auth.reason":                         text("annotations", "authorization.k8s.io/reason"),
	"ka.user.name":                           text("user", "username"),
	"ka.user.groups":                         list("user", "groups"),
	"ka.impuser.name":                        text("impersonatedUser", "username"),
	"ka.verb":                                text("verb"),
	"ka.uri":                                 text("requestURI"),
	"ka.uri.param":                           parameters,
	"ka.target.name":                         text("objectRef", "name"),
	"ka.target.namespace":                    text("objectRef", "namespace"),
	"ka.target.resource":                     text("objectRef", "resource"),
	"ka.target.subresource":                  text("objectRef", "subresource"),
	"ka.req.binding.subjects":                list("requestObject", "subjects"),
	"ka.req.binding.role":                    text("requestObject", "roleRef", "name"),
	"ka.req.configmap.obj":                   text("requestObject", "data"),
	"ka.req.pod.containers.image":            containers("image"),
	"ka.req.pod.containers.image.repository": repositories,
	"ka.req.pod.host_ipc":                    text("requestObject", "spec", "hostIPC"),
	"ka.req.pod.host_network":                text("requestObject", "spec", "hostNetwork"),
	"ka.req.pod.host_pid":                    text("requestObject", "spec", "hostPID"),
	"ka.req.pod.containers.host_port":        hostPorts,
	"ka.req.pod.containers.privileged":       privileged,
	"ka.req.container.privileged":            anyPrivileged,
	"ka.req.pod.containers.allow_privilege_escalation": containers("securityContext", "allowPrivilegeEscalation"),
	"ka.req.pod.containers.read_only_fs":               containers("securityContext", "readOnlyRootFilesystem"),
	"ka.req.pod.run_as_user":                           text("requestObject", "spec", "securityContext", "runAsUser"),
	"ka.req.pod.containers.run_as_user":                containers("securityContext", "runAsUser"),
	"ka.req.pod.containers.eff_run_as_user":            effective("runAsUser"),
	"ka.req.pod.run_as_group":                          text("requestObject", "spec", "securityContext", "runAsGroup"),
	"ka.req.pod.containers.run_as_group":               containers("securityContext", "runAsGroup"),
	"ka.req.pod.containers.eff_run_as_group":           effective("runAsGroup"),
	"ka.req.pod.containers.proc_mount":                 containers("securityContext", "procMount"),
	"ka.req.role.rules":                                list("requestObject", "rules"),
	"ka.req.role.rules.apiGroups":                      rules("apiGroups"),
	"ka.req.role.rules.nonResourceURLs":                rules("nonResourceURLs"),
	"ka.req.role.rules.verbs":                          rules("verbs"),
	"ka.req.role.rules.resources":                      rules("resources"),
	"ka.req.pod.fs_group":                              text("requestObject", "spec", "securityContext", "fsGroup"),
	"ka.req.pod.supplemental_groups":                   list("requestObject", "spec", "securityContext", "supplementalGroups"),
	"ka.req.pod.containers.add_capabilities":           containers("securityContext", "capabilities", "add"),
	"ka.req.service.type":                              text("requestObject", "spec", "type"),
	"ka.req.service.ports":                             list("requestObject", "spec", "ports"),
	"ka.req.pod.volumes.hostpath":                      elements([]string{"requestObject", "spec", "volumes"}, "hostPath", "path"),
	"ka.req.pod.volumes.hostpath, those there are":     present([]string{"requestObject", "spec", "volumes"}, "hostPath", "path"),
	"ka.req.pod.volumes.flexvolume_driver":             elements([]string{"requestObject", "spec", "volumes"}, "flexVolume", "driver"),
	"ka.req.pod.volumes.volume_type":                   volumeTypes,
	"ka.resp.name":                                     text("responseObject", "metadata", "name"),
	"ka.response.code":                                 text("responseStatus", "code"),
	"ka.response.reason":                               text("responseStatus", "reason"),
	"ka.useragent":                                     text("userAgent"),
	// Read with the json plugin, by rules of Falco's own and of others.
	"jevt.value[/level]":                                 text("level"),
	"jevt.value[/sourceIPs]":                             list("sourceIPs"),
	"jevt.value[/impersonatedUser/groups]":               list("impersonatedUser", "groups"),
	"jevt.value[/requestObject/ephemeralContainers]":     list("requestObject", "ephemeralContainers"),
	"jevt.value[/requestObject/spec/volumes]":            list("requestObject", "spec", "volumes"),
	"jevt.value[/requestObject/spec/containers] args":    present(containerList, "args"),
	"jevt.value[/requestObject/spec/containers] command": present(containerList, "command"),
	"jevt.value[/annotations/audit.k8s.io~1truncated]":   text("annotations", "audit.k8s.io/truncated"),
}

var containerList = []string{"requestObject", "spec", "containers"}

// falcoFieldNames are in a fixed order: the parser unescapes keys as it is asked, so that what it
// writes of an object can depend on what it was asked before.
var falcoFieldNames = slices.Sorted(maps.Keys(falcoExtractors))

func falcoFields(event *fastjson.Value) map[string]any {
	fields := map[string]any{}
	for _, name := range falcoFieldNames {
		if value, err := falcoExtractors[name](event); err == nil {
			fields[name] = value
		}
	}
	return fields
}

// asText is a string's content, or the JSON of anything else.
func asText(value *fastjson.Value) (string, error) {
	switch {
	case value == nil:
		return "", errWrongType
	case value.Type() == fastjson.TypeString:
		return string(value.GetStringBytes()), nil
	default:
		return string(value.MarshalTo(nil)), nil
	}
}

func asTexts(values []*fastjson.Value) ([]string, error) {
	texts := []string{}
	for _, value := range values {
		text, err := asText(value)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func text(path ...string) extractor {
	return func(event *fastjson.Value) (any, error) {
		value := event.Get(path...)
		if value == nil {
			return nil, errNotAvailable
		}
		return asText(value)
	}
}

func list(path ...string) extractor {
	return func(event *fastjson.Value) (any, error) {
		value := event.Get(path...)
		if value == nil {
			return nil, errNotAvailable
		}
		if value.Type() != fastjson.TypeArray {
			return nil, errWrongType
		}
		return asTexts(value.GetArray())
	}
}

// inElements gives what stands at a path in each element of an array: nil where nothing does.
func inElements(event *fastjson.Value, array []string, path ...string) ([]*fastjson.Value, error) {
	elements := event.GetArray(array...)
	if elements == nil {
		return nil, errNotAvailable
	}
	values := []*fastjson.Value{}
	for _, element := range elements {
		values = append(values, element.Get(path...))
	}
	return values, nil
}

func withoutNil(values []*fastjson.Value) []*fastjson.Value {
	there := []*fastjson.Value{}
	for _, value := range values {
		if value != nil {
			there = append(there, value)
		}
	}
	return there
}

// elements: not available as soon as one element lacks it.
func elements(array []string, path ...string) extractor {
	return func(event *fastjson.Value) (any, error) {
		values, err := inElements(event, array, path...)
		if err != nil {
			return nil, err
		}
		return asTexts(values)
	}
}

// present: of those elements that have it.
func present(array []string, path ...string) extractor {
	return func(event *fastjson.Value) (any, error) {
		values, err := inElements(event, array, path...)
		if err != nil {
			return nil, err
		}
		return asTexts(withoutNil(values))
	}
}

func containers(path ...string) extractor {
	return elements(containerList, path...)
}

func repositories(event *fastjson.Value) (any, error) {
	values, err := inElements(event, containerList, "image")
	if err != nil {
		return nil, err
	}
	images, err := asTexts(values)
	if err != nil {
		return nil, err
	}
	for index, image := range images {
		image, _, _ = strings.Cut(image, ":")
		images[index], _, _ = strings.Cut(image, "@")
	}
	return images, nil
}

func hostPorts(event *fastjson.Value) (any, error) {
	values, err := inElements(event, containerList, "ports")
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, ports := range values {
		if ports == nil || ports.Type() != fastjson.TypeArray {
			return nil, errWrongType
		}
		for _, port := range ports.GetArray() {
			value := port.Get("hostPort")
			if value == nil {
				value = port.Get("containerPort")
			}
			if value == nil {
				continue
			}
			text, err := asText(value)
			if err != nil {
				return nil, err
			}
			found = append(found, text)
		}
	}
	return found, nil
}

func privileged(event *fastjson.Value) (any, error) {
	return present(containerList, "securityContext", "privileged")(event)
}

func anyPrivileged(event *fastjson.Value) (any, error) {
	values, err := inElements(event, containerList, "securityContext", "privileged")
	if err != nil {
		return nil, err
	}
	for _, value := range values {
		if value != nil && value.GetBool() {
			return "true", nil
		}
	}
	return "false", nil
}

func effective(name string) extractor {
	return func(event *fastjson.Value) (any, error) {
		otherwise := "0"
		if value := event.Get("requestObject", "spec", name); value != nil {
			text, err := asText(value)
			if err != nil {
				return nil, err
			}
			otherwise = text
		}
		values, err := inElements(event, containerList, name)
		if err != nil {
			return nil, err
		}
		found := []string{}
		for _, value := range values {
			text, err := asText(value)
			if err != nil {
				text = otherwise
			}
			found = append(found, text)
		}
		return found, nil
	}
}

func rules(name string) extractor {
	return func(event *fastjson.Value) (any, error) {
		values, err := inElements(event, []string{"requestObject", "rules"}, name)
		if err != nil {
			return nil, err
		}
		found := []string{}
		for _, value := range withoutNil(values) {
			if value.Type() != fastjson.TypeArray {
				continue
			}
			texts, err := asTexts(value.GetArray())
			if err != nil {
				return nil, err
			}
			found = append(found, texts...)
		}
		return found, nil
	}
}

func volumeTypes(event *fastjson.Value) (any, error) {
	volumes := event.GetArray("requestObject", "spec", "volumes")
	if volumes == nil {
		return nil, errNotAvailable
	}
	found := []string{}
	for _, volume := range volumes {
		members, err := volume.Object()
		if err != nil {
			return nil, err
		}
		members.Visit(func(key []byte, _ *fastjson.Value) {
			if string(key) != "name" {
				found = append(found, string(key))
			}
		})
	}
	return found, nil
}

// parameters is ka.uri.param for every name that the query has: of several values the first. An
// escape that is none, or a semicolon, and no parameter can be read.
func parameters(event *fastjson.Value) (any, error) {
	value := event.Get("requestURI")
	if value == nil {
		return nil, errNotAvailable
	}
	uri, err := asText(value)
	if err != nil {
		return nil, err
	}
	parsed, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return nil, err
	}
	first := map[string]string{}
	for name, values := range query {
		first[name] = values[0]
	}
	return first, nil
}
