package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// differences compares a body with what became of it after decoding and encoding. Members that the
// Go type does not know may be gone; so may members that are empty, and empty ones may have come.
func differences(before, after []byte, object runtime.Object) []string {
	x, err := tree(before)
	if err != nil {
		return []string{"encoding/json: " + shorten(err.Error())}
	}
	y, err := tree(after)
	if err != nil {
		return []string{"encoding/json, encoded again: " + shorten(err.Error())}
	}
	found := []string{}
	compare("", x, y, reflect.TypeOf(object).Elem(), &found)
	sort.Strings(found)
	return found
}

// compare walks both values along the Go type; of is nil where any JSON may stand.
func compare(path string, before, after any, of reflect.Type, found *[]string) {
	for of != nil && of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of == reflect.TypeFor[runtime.Unknown]() || of == reflect.TypeFor[metav1.MicroTime]() {
		of = nil
	}
	switch before := before.(type) {
	case map[string]any:
		if after, ok := after.(map[string]any); ok {
			compareMembers(path, before, after, of, found)
			return
		}
	case []any:
		if after, ok := after.([]any); ok && len(before) == len(after) {
			var item reflect.Type
			if of != nil && of.Kind() == reflect.Slice {
				item = of.Elem()
			}
			for index := range before {
				compare(fmt.Sprintf("%s[%d]", path, index), before[index], after[index], item, found)
			}
			return
		}
	}
	if !reflect.DeepEqual(before, after) && !(of != nil && isEmpty(before) && isEmpty(after)) {
		*found = append(*found, fmt.Sprintf("changed %s: %s became %s", path, brief(before), brief(after)))
	}
}

func compareMembers(path string, before, after map[string]any, of reflect.Type, found *[]string) {
	known := func(string) (reflect.Type, bool) { return nil, true }
	if of != nil && of.Kind() == reflect.Map {
		known = func(string) (reflect.Type, bool) { return of.Elem(), true }
	}
	if of != nil && of.Kind() == reflect.Struct {
		members := membersOf(of)
		known = func(name string) (reflect.Type, bool) {
			member, ok := members[name]
			return member, ok
		}
	}
	for name, value := range before {
		member, ok := known(name)
		if !ok {
			continue
		}
		again, there := after[name]
		switch {
		case there:
			compare(path+"."+name, value, again, member, found)
		// Items of a list are written without them.
		case of == reflect.TypeFor[auditv1.Event]() && path != "" && (name == "kind" || name == "apiVersion"):
		case of != nil && isEmpty(value):
		default:
			*found = append(*found, fmt.Sprintf("lost %s.%s: %s", path, name, brief(value)))
		}
	}
	for name, value := range after {
		if _, there := before[name]; !there && !(of != nil && isEmpty(value)) {
			*found = append(*found, fmt.Sprintf("added %s.%s: %s", path, name, brief(value)))
		}
	}
}

var memberTypes = map[reflect.Type]map[string]reflect.Type{}

// membersOf lists the JSON members of a struct type. The judge has one thread.
func membersOf(of reflect.Type) map[string]reflect.Type {
	if members, ok := memberTypes[of]; ok {
		return members
	}
	members := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			members[name] = field.Type
		}
	}
	memberTypes[of] = members
	return members
}

func isEmpty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case bool:
		return !value
	case string:
		return value == ""
	case json.Number:
		return value == "0"
	case []any:
		return len(value) == 0
	case map[string]any:
		for _, member := range value {
			if !isEmpty(member) {
				return false
			}
		}
		return true
	}
	return false
}

func brief(value any) string {
	const most = 90
	text, _ := json.Marshal(value)
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "…"
	}
	return string(text)
}
