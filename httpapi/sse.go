package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// stream writes server-sent events by hand, or bare lines: one line of JSON each, flushed at once, with a deadline for each write, so that
// a client that does not read is given up.
type stream struct {
	lines    bool // bare lines, as ollama's clients read them, which know no comments and no last event
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	begun    bool
	buf      bytes.Buffer
}

func newStream(w http.ResponseWriter, patience time.Duration) *stream {
	return &stream{w: w, control: http.NewResponseController(w), patience: patience}
}

// event sends v.
func (s *stream) event(v any) error {
	s.buf.Reset()
	if !s.lines {
		s.buf.WriteString("data: ")
	}
	if err := encodeJSON(&s.buf, v); err != nil {
		return err
	}
	if !s.lines {
		s.buf.WriteByte('\n')
	}
	return s.send(s.buf.Bytes())
}

// ping sends a comment, which clients ignore and which keeps proxies from closing a quiet connection.
func (s *stream) ping() error { return s.send([]byte(": ping\n\n")) }

// done tells the client that the stream is complete.
func (s *stream) done() error { return s.send([]byte("data: [DONE]\n\n")) }

func (s *stream) send(b []byte) error {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream")
		if s.lines {
			h.Set("Content-Type", "application/x-ndjson")
		}
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
		s.w.WriteHeader(http.StatusOK)
	}
	if err := write(s.w, s.control, b, s.patience); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("%w: flush: %w", errGone, err)
	}
	return nil
}

// pieceBytes is how much a client must take within one deadline.
const pieceBytes = 256 << 10

// write sends bytes, each piece within a time, or finds the client gone.
func write(w http.ResponseWriter, control *http.ResponseController, b []byte, patience time.Duration) error {
	for piece := range slices.Chunk(b, pieceBytes) {
		if err := control.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("%w: set deadline: %w", errGone, err)
		}
		if _, err := w.Write(piece); err != nil {
			return fmt.Errorf("%w: write: %w", errGone, err)
		}
	}
	return nil
}

// encodeJSON appends v as one line of JSON and its line break. Text is written as it is, without HTML's escapes.
func encodeJSON(buf *bytes.Buffer, v any) error {
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	return nil
}
