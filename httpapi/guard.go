package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
)

const headerRequestID = "X-Request-Id"

// requestID is the id that this request is known by in logs and to its client.
func requestID(c *gin.Context) string { return c.Writer.Header().Get(headerRequestID) }

// observe gives a request its id and logs it when it is over.
func (s *Server) observe(c *gin.Context) {
	id := c.GetHeader(headerRequestID)
	if !printable(id) {
		id = uuid.NewString()
	}
	c.Header(headerRequestID, id)
	control := http.NewResponseController(c.Writer)
	// The last answer on this connection may have left its deadline.
	err := control.SetWriteDeadline(time.Time{})
	if c.Request.ContentLength != 0 && err == nil {
		// A body that no route reads is waited for before the answer goes out. Who reads one sets a deadline of its own.
		err = control.SetReadDeadline(time.Now().Add(s.opt.BodyTimeout))
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.log.Debug("deadlines not set", "id", id, "err", err)
	}
	started := time.Now()
	c.Next()
	s.log.DebugContext(c.Request.Context(), "request", "id", id, "method", c.Request.Method, "route", c.FullPath(), "status", c.Writer.Status(),
		"bytes", c.Writer.Size(), "took", time.Since(started), "key", c.GetString(keyName))
}

// printable says whether a client's request id may be repeated in headers and logs.
func printable(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// recover turns a panic into a failed request.
func (s *Server) recover(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http's own way to break a connection
		}
		err := fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		if c.Writer.Written() {
			s.report(c, err)
			panic(http.ErrAbortHandler) // so that the client does not take what it has for all
		}
		s.fail(c, err)
	}()
	c.Next()
}

// guard refuses calls by names that are not the server's, as rebound DNS names are, and from web pages of foreign origins. It answers
// the preflights of those that may call.
func (s *Server) guard(c *gin.Context) {
	host := hostName(c.Request.Host)
	if !s.knows(host) {
		s.fail(c, &fault{Status: http.StatusForbidden, Type: typeRequest, Code: codeHost,
			Message: "the Host header names another server; add the name to the server's allowed hosts if it is meant"})
		return
	}
	origin := c.GetHeader("Origin")
	if origin == "" {
		return
	}
	if !s.welcomes(origin, c.Request.Host) {
		s.fail(c, &fault{Status: http.StatusForbidden, Type: typeRequest, Code: codeOrigin,
			Message: "web pages of this origin may not call; add it to the server's allowed origins if they should"})
		return
	}
	h := c.Writer.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", headerRequestID+", Retry-After")
	if c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != "" {
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "*")
		h.Set("Access-Control-Max-Age", "600")
		c.AbortWithStatus(http.StatusNoContent)
	}
}

// hostName is a Host header without its port.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// isLocal says whether a name means this machine whatever DNS says.
func isLocal(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// knows says whether a host name may be the server's. Who listens to the network without a list is called as its clients like.
func (s *Server) knows(host string) bool {
	if !s.loopback && len(s.opt.Hosts) == 0 {
		return true
	}
	return isLocal(host) || slices.ContainsFunc(s.opt.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// welcomes says whether pages of an origin may call.
func (s *Server) welcomes(origin, host string) bool {
	if slices.Contains(s.opt.Origins, "*") || slices.Contains(s.opt.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") &&
		(strings.EqualFold(u.Host, host) || isLocal(strings.ToLower(u.Hostname())))
}

// body reads a request's JSON within the limits of size and time.
func (s *Server) body(c *gin.Context) ([]byte, error) {
	if kind := c.GetHeader("Content-Type"); kind != "" {
		media, _, err := mime.ParseMediaType(kind)
		form := media == "application/x-www-form-urlencoded" && native(c) // curl says so of any body, and ollama's documents leave it at that
		if err != nil || media != "application/json" && !form {
			return nil, &fault{Status: http.StatusUnsupportedMediaType, Type: typeRequest, Code: codeMedia,
				Message: "the body must be application/json"}
		}
	}
	if coding := c.GetHeader("Content-Encoding"); coding != "" && coding != "identity" {
		return nil, &fault{Status: http.StatusUnsupportedMediaType, Type: typeRequest, Code: codeMedia,
			Message: "the body must not be compressed"}
	}
	control := http.NewResponseController(c.Writer)
	deadline := func(t time.Time) error {
		if err := control.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("%w: set deadline: %w", errGone, err)
		}
		return nil
	}
	if err := deadline(time.Now().Add(s.opt.BodyTimeout)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, s.opt.BodyLimit))
	if err == nil {
		return b, deadline(time.Time{})
	}
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large || errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("read body: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF) || c.Request.Context().Err() != nil:
		return nil, fmt.Errorf("read body: %w: %w", errGone, err)
	}
	return nil, &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeJSON, Message: "the body cannot be read: " + err.Error()}
}
