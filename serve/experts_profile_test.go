package serve

import (
	"errors"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

func TestProfileOf(t *testing.T) {
	all := []ExpertProfile{
		{Model: "a", Usage: [][]int64{make([]int64, 8), nil, make([]int64, 8)}},
		{Model: "b", Usage: [][]int64{make([]int64, 8), nil}},
		{Model: "c", Usage: [][]int64{make([]int64, 8), nil, make([]int64, 7)}},
	}
	for of, want := range map[string]string{"a": "", "b": "it has 2 layers, the model 3", "c": "it has 7 experts in layer 2, the model 8"} {
		p, err := profileOf(all, of, twoOf())
		if p == nil || p.Model != of || errors.Is(err, ErrProfile) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", of, p, err)
		}
	}
	if p, err := profileOf(all, "d", &model.Spec{}); p != nil || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
}
