package main

import (
	"fmt"
	"time"

	"github.com/valyala/fastjson"
)

// What Falco's k8saudit plugin does with the body of a POST, after it has answered 200. Written
// from its documentation and its sources (falcosecurity/plugins, plugins/k8saudit, 0.18); the
// parser is the one that it uses.

// falcoEventBytesMax is the plugin's maxEventSize, as it comes.
const falcoEventBytesMax = 262144

// falcoVerdict says what Falco has of a body.
type falcoVerdict struct {
	// Refused: the whole POST is lost.
	Refused string      `json:"refused,omitempty"`
	Items   []falcoItem `json:"items"`
}

type falcoItem struct {
	// Lost: this event alone is lost.
	Lost string `json:"lost,omitempty"`
	// Fields: what rules can read of the event; a field that is not there is not available. An event
	// that is lost for its size alone has them too: what rules would have read.
	Fields map[string]any `json:"fields,omitempty"`
}

func falco(body []byte) falcoVerdict {
	verdict := falcoVerdict{Items: []falcoItem{}}
	var parser fastjson.Parser
	value, err := parser.ParseBytes(body)
	if err == nil {
		verdict.Items, err = falcoItems(value)
	}
	if err != nil {
		return falcoVerdict{Refused: shorten(err.Error()), Items: []falcoItem{}}
	}
	return verdict
}

func falcoItems(value *fastjson.Value) ([]falcoItem, error) {
	if value.Type() == fastjson.TypeArray {
		items := []falcoItem{}
		for _, element := range value.GetArray() {
			inner, err := falcoItems(element)
			if err != nil {
				return nil, err
			}
			items = append(items, inner...)
		}
		return items, nil
	}
	switch string(value.GetStringBytes("kind")) {
	case "EventList":
		if array := value.Get("items"); array != nil && array.Type() == fastjson.TypeArray {
			items := []falcoItem{}
			for _, item := range array.GetArray() {
				items = append(items, falcoEvent(item))
			}
			return items, nil
		}
	case "Event":
		return []falcoItem{falcoEvent(value)}, nil
	}
	return nil, fmt.Errorf("neither an Event nor an EventList")
}

func falcoEvent(value *fastjson.Value) falcoItem {
	stamp := value.Get("stageTimestamp")
	if stamp == nil {
		return falcoItem{Lost: "no stageTimestamp"}
	}
	if _, err := time.Parse(time.RFC3339Nano, string(stamp.GetStringBytes())); err != nil {
		return falcoItem{Lost: "stageTimestamp: " + shorten(err.Error())}
	}
	// The event is written anew, and read again when a rule asks for a field.
	text := value.MarshalTo(nil)
	var item falcoItem
	if len(text) > falcoEventBytesMax {
		item.Lost = fmt.Sprintf("%d bytes, more than %d", len(text), falcoEventBytesMax)
	}
	var parser fastjson.Parser
	event, err := parser.ParseBytes(text)
	if err != nil {
		return falcoItem{Lost: "written anew by Falco it cannot be read: " + shorten(err.Error())}
	}
	item.Fields = falcoFields(event)
	return item
}
