package model_test

import (
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
)

func TestStepRowsFollowExperts(t *testing.T) {
	for _, c := range []struct{ experts, k, rows int }{{0, 0, 512}, {8, 2, 512}, {64, 8, 1024}, {128, 8, 2048}, {512, 10, 2048}} {
		s := model.Spec{Layers: []model.LayerSpec{{}, {}}}
		if c.k > 0 {
			s.Layers[1].Router = &moe.RouterSpec{Experts: c.experts, K: c.k}
		}
		if got := s.StepRows(); got != c.rows {
			t.Errorf("%d of %d experts: %d tokens a step, want %d", c.k, c.experts, got, c.rows)
		}
	}
}
