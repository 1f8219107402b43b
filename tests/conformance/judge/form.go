package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// inspectForm looks at what Kubernetes' decoder takes in silence, and other receivers do not: a
// key that stands twice in an object at any depth (compared after unescaping), bytes that are no
// UTF-8, half of a surrogate pair. The text must be valid JSON otherwise.
func inspectForm(text []byte) (depth int, found []string) {
	walk := formWalk{text: text}
	if !utf8.Valid(text) {
		walk.report("bytes that are no UTF-8")
	}
	walk.value(1, "")
	return walk.deepest, firstOf(append([]string{}, walk.found...))
}

type formWalk struct {
	text    []byte
	at      int
	deepest int
	found   []string
}

func (w *formWalk) report(what string) {
	w.found = append(w.found, shorten(what))
}

func (w *formWalk) space() {
	for w.at < len(w.text) {
		switch w.text[w.at] {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return
		}
	}
}

func (w *formWalk) value(depth int, path string) {
	w.deepest = max(w.deepest, depth)
	w.space()
	switch w.text[w.at] {
	case '{':
		w.object(depth, path)
	case '[':
		w.array(depth, path)
	case '"':
		w.string(path)
	default:
		for w.at < len(w.text) {
			switch w.text[w.at] {
			case ',', ']', '}', ' ', '\t', '\r', '\n':
				return
			}
			w.at++
		}
	}
}

func (w *formWalk) object(depth int, path string) {
	keys := map[string]struct{}{}
	for w.at++; ; w.at++ {
		w.space()
		if w.text[w.at] == '}' {
			w.at++
			return
		}
		key := w.string(path)
		inner := path
		if len(path) < 200 {
			inner = path + "." + key
		}
		if _, twice := keys[key]; twice {
			w.report("key stands twice: " + inner)
		}
		keys[key] = struct{}{}
		w.space()
		w.at++ // the colon
		w.value(depth+1, inner)
		w.space()
		if w.text[w.at] == '}' {
			w.at++
			return
		}
	}
}

func (w *formWalk) array(depth int, path string) {
	index := 0
	for w.at++; ; w.at++ {
		w.space()
		if w.text[w.at] == ']' {
			w.at++
			return
		}
		inner := path
		if len(path) < 200 {
			inner = path + "[" + strconv.Itoa(index) + "]"
		}
		w.value(depth+1, inner)
		index++
		w.space()
		if w.text[w.at] == ']' {
			w.at++
			return
		}
	}
}

// string reads a string and looks at its escapes.
func (w *formWalk) string(path string) string {
	start := w.at
	escaped, half := false, -1
	for w.at++; w.text[w.at] != '"'; w.at++ {
		if w.text[w.at] != '\\' {
			half = w.lone(half, path)
			continue
		}
		escaped = true
		w.at++
		if w.text[w.at] != 'u' {
			half = w.lone(half, path)
			continue
		}
		unit, _ := strconv.ParseUint(string(w.text[w.at+1:w.at+5]), 16, 16)
		w.at += 4
		switch {
		case unit >= 0xdc00 && unit < 0xe000 && half >= 0:
			half = -1
		case unit >= 0xdc00 && unit < 0xe000:
			half = w.lone(int(unit), path)
		case unit >= 0xd800 && unit < 0xdc00:
			w.lone(half, path)
			half = int(unit)
		default:
			half = w.lone(half, path)
		}
	}
	w.lone(half, path)
	w.at++
	raw := w.text[start:w.at]
	if !escaped {
		return string(raw[1 : len(raw)-1])
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// lone reports half of a pair that was waiting for its other half.
func (w *formWalk) lone(half int, path string) int {
	if half >= 0 {
		w.report(fmt.Sprintf("half of a surrogate pair, \\u%04x, in %s", half, path))
	}
	return -1
}
