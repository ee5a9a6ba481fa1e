package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/winnow-llm/winnow/serve"
)

// modelBody describes a model on the wire. Beyond OpenAI's keys it has vLLM's max_model_len and llama.cpp's meta, of loaded models.
type modelBody struct {
	ID      string     `json:"id"`
	Object  string     `json:"object"`
	Created int64      `json:"created"`
	Owner   string     `json:"owned_by"`
	Loaded  bool       `json:"loaded"`
	Context int        `json:"max_model_len,omitempty"`
	Meta    *modelMeta `json:"meta,omitempty"`
}

type modelMeta struct {
	Vocab   int   `json:"n_vocab"`
	Context int   `json:"n_ctx_train"`
	Size    int64 `json:"size,omitempty"` // bytes of its weights
}

func newModelBody(l serve.Listing) modelBody {
	b := modelBody{ID: l.Name, Object: "model", Created: max(0, l.Created.Unix()), Owner: "winnow", Loaded: l.Loaded, Context: l.Context}
	if l.Loaded {
		b.Meta = &modelMeta{Vocab: l.Spec.Vocab, Context: l.Spec.Context, Size: l.Size}
	}
	return b
}

// models lists what the pool has, loaded or not.
func (s *Server) models(c *gin.Context) {
	list := struct {
		Object string      `json:"object"`
		Data   []modelBody `json:"data"`
	}{"list", []modelBody{}}
	all, err := s.pool.List()
	if err != nil {
		s.fail(c, err)
		return
	}
	for _, l := range all {
		list.Data = append(list.Data, newModelBody(l))
	}
	s.answer(c, http.StatusOK, list)
}

// model describes one, by any name that requests for answers may use. Its id may hold slashes.
func (s *Server) model(c *gin.Context) {
	id := strings.TrimPrefix(c.Param("id"), "/")
	all, err := s.pool.List()
	if err != nil {
		s.fail(c, err)
		return
	}
	for _, l := range all {
		if serve.SameName(l.Name, id) {
			s.answer(c, http.StatusOK, newModelBody(l))
			return
		}
	}
	s.fail(c, fmt.Errorf("%w: %.200q", serve.ErrNoModel, id))
}

// health says that the process answers.
func (s *Server) health(c *gin.Context) { s.answer(c, http.StatusOK, gin.H{"status": "ok"}) }

// ready says whether requests may come: the models that are to be loaded at the start are, and the server is not about to stop.
func (s *Server) ready(c *gin.Context) {
	if s.gate.draining() {
		s.answer(c, http.StatusServiceUnavailable, gin.H{"status": "draining"})
		return
	}
	if s.pool.Ready() {
		s.answer(c, http.StatusOK, gin.H{"status": "ready"})
		return
	}
	s.answer(c, http.StatusServiceUnavailable, gin.H{"status": "loading"})
}

func (s *Server) version(c *gin.Context) { s.answer(c, http.StatusOK, gin.H{"version": s.opt.Version}) }

// answer sends a body that nothing follows.
func (s *Server) answer(c *gin.Context, status int, v any) {
	if err := s.reply(c, status, v); err != nil {
		s.log.Debug("answer not sent", "id", requestID(c), "err", err)
	}
}
