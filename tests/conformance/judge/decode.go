package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/apis/audit/install"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// decoded is what k8s.io/apiserver's audit scheme says of a body. Lists end after listMax entries.
type decoded struct {
	// Hard: no receiver that uses this decoder has any event of the body.
	Hard string `json:"hard,omitempty"`
	// Strict: what a strict receiver refuses the body for, beside unknown members.
	Strict []string `json:"strict"`
	// Unknown: members that this release does not know.
	Unknown []string `json:"unknown"`
	// Differences: what is not equal after decoding and encoding, beside unknown members and
	// members that are empty.
	Differences []string `json:"differences"`
	// Form: what the decoder does not look at and other receivers do; see inspectForm.
	Form []string `json:"form"`
	// Depth: levels of nesting, a scalar at the bottom counted, as Falco's parser counts.
	Depth int `json:"depth"`
	Items int `json:"items"`
}

const listMax = 20

var (
	scheme = runtime.NewScheme()
	strict serializer.CodecFactory
	lax    serializer.CodecFactory
)

func init() {
	install.Install(scheme)
	strict = serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	lax = serializer.NewCodecFactory(scheme)
}

func decode(body []byte) decoded {
	verdict := decoded{Strict: []string{}, Unknown: []string{}, Differences: []string{}, Form: []string{}}
	if !json.Valid(body) {
		verdict.Form = append(verdict.Form, "encoding/json: no valid JSON")
	} else {
		verdict.Depth, verdict.Form = inspectForm(body)
	}
	object, _, err := strict.UniversalDeserializer().Decode(body, nil, nil)
	if errors, ok := runtime.AsStrictDecodingError(err); ok {
		for _, err := range errors.Errors() {
			list := &verdict.Strict
			if strings.HasPrefix(err.Error(), "unknown field ") {
				list = &verdict.Unknown
			}
			*list = append(*list, shorten(err.Error()))
		}
		verdict.Strict, verdict.Unknown = firstOf(verdict.Strict), firstOf(verdict.Unknown)
		object, _, err = lax.UniversalDeserializer().Decode(body, nil, nil)
	}
	if err != nil {
		verdict.Hard = shorten(err.Error())
		return verdict
	}
	switch object := object.(type) {
	case *auditv1.EventList:
		verdict.Items = len(object.Items)
	case *auditv1.Event:
		verdict.Items = 1
	default:
		verdict.Hard = fmt.Sprintf("decoded to %T", object)
		return verdict
	}
	encoded, err := encode(object)
	if err != nil {
		verdict.Differences = append(verdict.Differences, shorten(err.Error()))
		return verdict
	}
	verdict.Differences = firstOf(differences(body, encoded, object))
	return verdict
}

// encode writes an object as an API server's own webhook backend does: through the internal type.
func encode(object runtime.Object) ([]byte, error) {
	version := schema.GroupVersion{Group: auditinternal.GroupName, Version: runtime.APIVersionInternal}
	internal, err := scheme.ConvertToVersion(object, version)
	if err != nil {
		return nil, fmt.Errorf("no internal form: %w", err)
	}
	info, _ := runtime.SerializerInfoForMediaType(lax.SupportedMediaTypes(), runtime.ContentTypeJSON)
	var out bytes.Buffer
	if err := lax.EncoderForVersion(info.Serializer, auditv1.SchemeGroupVersion).Encode(internal, &out); err != nil {
		return nil, fmt.Errorf("not encodable: %w", err)
	}
	return out.Bytes(), nil
}

// tree reads JSON with numbers as they are written.
func tree(text []byte) (value any, err error) {
	reader := json.NewDecoder(bytes.NewReader(text))
	reader.UseNumber()
	if err = reader.Decode(&value); err == nil {
		if _, more := reader.Token(); more != io.EOF {
			err = fmt.Errorf("more behind the value")
		}
	}
	return
}

func shorten(text string) string {
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func firstOf(list []string) []string {
	if len(list) > listMax {
		return append(list[:listMax:listMax], fmt.Sprintf("… and %d more", len(list)-listMax))
	}
	return list
}
