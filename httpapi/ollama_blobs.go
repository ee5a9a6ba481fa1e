package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/winnow-llm/winnow/serve"
)

// digestForm is what names a file of the store.
var digestForm = regexp.MustCompile(`^sha256[:-][0-9a-f]{64}$`)

// digest is the one in a request's path.
func digest(c *gin.Context) (string, error) {
	d := c.Param("digest")
	if !digestForm.MatchString(d) {
		return "", &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeValue, Message: "a digest is sha256: and 64 hex digits in lower case"}
	}
	return "sha256:" + d[len("sha256:"):], nil
}

// hasBlob says whether the store has a file.
func (s *Server) hasBlob(c *gin.Context) {
	d, err := digest(c)
	var has bool
	switch {
	case err != nil:
	case s.opt.Library == nil:
		err = errNoLibrary
	default:
		has, err = s.opt.Library.HasBlob(d)
	}
	switch {
	case err != nil:
		s.fail(c, err)
	case !has:
		s.fail(c, &fault{Status: http.StatusNotFound, Type: typeRequest, Code: codeRoute, Message: "no such file in the store"})
	default:
		c.Status(http.StatusOK)
	}
}

// addBlob takes a file into the store as it comes.
func (x *exchange) addBlob(ctx context.Context) error {
	d, err := digest(x.c)
	if err != nil {
		return err
	}
	if x.s.opt.Library == nil {
		return errNoLibrary
	}
	if coding := x.c.GetHeader("Content-Encoding"); coding != "" && coding != "identity" {
		return &fault{Status: http.StatusUnsupportedMediaType, Type: typeRequest, Code: codeMedia, Message: "the body must not be compressed"}
	}
	has, err := x.s.opt.Library.HasBlob(d)
	switch {
	case err != nil:
		return err
	case has:
		x.c.Status(http.StatusOK)
		return nil
	}
	body := &arriving{ctx: ctx, control: http.NewResponseController(x.c.Writer), patience: x.s.opt.BodyTimeout,
		body: http.MaxBytesReader(x.c.Writer, x.c.Request.Body, x.s.opt.BlobLimit)}
	err = x.s.opt.Library.AddBlob(ctx, d, body)
	switch {
	case err == nil:
		x.c.Status(http.StatusCreated)
		return nil
	case body.err != nil: // of the request, and not of the store
		return body.err
	case errors.Is(err, serve.ErrDigest):
		return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: "wrong_digest", Message: err.Error()}
	}
	return told(err)
}

// arriving is a body that may take its time, and whose every piece may not.
type arriving struct {
	ctx      context.Context
	control  *http.ResponseController
	patience time.Duration
	body     io.Reader
	err      error // why it does not arrive
}

func (a *arriving) Read(p []byte) (int, error) {
	if err := context.Cause(a.ctx); err != nil {
		a.err = err
		return 0, err
	}
	if a.err = a.deadline(time.Now().Add(a.patience)); a.err != nil {
		return 0, a.err
	}
	n, err := a.body.Read(p)
	if err == io.EOF { // what is done with the file may take long
		if a.err = a.deadline(time.Time{}); a.err != nil {
			return n, a.err
		}
	}
	if err != nil && err != io.EOF {
		if a.err = fmt.Errorf("read body: %w", err); errors.Is(err, io.ErrUnexpectedEOF) {
			a.err = fmt.Errorf("%w: %w", errGone, a.err)
		}
		return n, a.err
	}
	return n, err
}

func (a *arriving) deadline(t time.Time) error {
	if err := a.control.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("%w: set deadline: %w", errGone, err)
	}
	return nil
}
