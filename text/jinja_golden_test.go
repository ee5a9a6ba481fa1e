package text

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// published is where the templates of published models and the reference's renders of them lie, beside the repository.
const published = "../../shared/assets/chat-templates"

func read(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spanText(spans []Span) string {
	var b strings.Builder
	for _, s := range spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

// goldenVars are the variables of a conversation as the goldens were made, whose clock knows two forms only.
func goldenVars(t testing.TB, conversation []byte) Value {
	v, err := ParseJSON(conversation)
	if err != nil {
		t.Fatal(err)
	}
	d := v.dict()
	d.set(String("bos_token"), String("<BOS>"))
	d.set(String("eos_token"), String("<EOS>"))
	d.set(String("strftime_now"), callableValue("strftime_now", func(_ *interp, a values) (Value, error) {
		if len(a.pos) == 1 && a.pos[0].text().s == "%Y-%m-%d" {
			return String("2026-11-23"), nil
		}
		return String("23 Nov 2026"), nil
	}))
	return v
}

// TestPublishedTemplates renders the templates of published models and compares with the reference, byte by byte.
func TestPublishedTemplates(t *testing.T) {
	if _, err := os.Stat(published); err != nil {
		t.Skipf("the published templates are not beside the repository: %v", err)
	}
	var want map[string]map[string]string
	var conversations map[string]json.RawMessage
	if err := json.Unmarshal(read(t, filepath.Join(published, "expected.json")), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(read(t, filepath.Join(published, "conversations.json")), &conversations); err != nil {
		t.Fatal(err)
	}
	same, all := 0, 0
	for file, renders := range want {
		tmpl, err := ParseTemplate(string(read(t, filepath.Join(published, file))))
		for name, text := range renders {
			all++
			if err != nil {
				if !strings.HasPrefix(text, "ERR ") {
					t.Errorf("%s: %v", file, err)
					continue
				}
				same++
				continue
			}
			spans, err := tmpl.Render(goldenVars(t, conversations[name]), Limits{})
			got := spanText(spans)
			switch {
			case strings.HasPrefix(text, "ERR "):
				if err == nil {
					t.Errorf("%s %s: no error, want %s", file, name, text)
					continue
				}
				t.Logf("%s %s:\n\t%v\n\t%s", file, name, err, text)
			case err != nil:
				t.Errorf("%s %s: %v", file, name, err)
				continue
			case got != text:
				at := 0
				for at < min(len(got), len(text)) && got[at] == text[at] {
					at++
				}
				t.Errorf("%s %s: differs at byte %d:\n got %q\nwant %q", file, name, at,
					got[max(0, at-40):min(len(got), at+60)], text[max(0, at-40):min(len(text), at+60)])
				continue
			}
			same++
		}
	}
	t.Logf("%d of %d renders are those of the reference", same, all)
}

var clock = func() time.Time { return time.Date(2026, 11, 23, 9, 5, 7, 0, time.UTC) }
