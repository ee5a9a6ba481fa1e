package engine

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a test leaves a goroutine behind: a loop that was not closed, a request that did not end.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
