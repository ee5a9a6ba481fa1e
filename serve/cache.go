package serve

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/dgraph-io/ristretto/v2"

	"github.com/winnow-llm/winnow/text"
)

// identities numbers models.
var identities atomic.Uint64

// CacheOptions are how much a cache may hold, in bytes; 0 = nothing of the kind.
type CacheOptions struct {
	Written   int64 // conversations as templates write them
	Tokenised int64 // runs of text with their ids
}

// Cache remembers what prompts were made of, for all models of a server: a conversation that comes again is not rendered again, and of one
// that has grown only the new text is tokenised. It may forget at any time, and changes nothing but how long a prompt takes. A nil Cache
// remembers nothing. Its methods may be called from any goroutine until Close.
type Cache struct {
	conversations *ristretto.Cache[string, conversation]
	runs          *ristretto.Cache[uint64, run]
	counts        struct{ writtenHits, writtenMisses, tokenHits, tokenMisses atomic.Int64 }
}

// CacheCounters only grow.
type CacheCounters struct {
	WrittenHits, WrittenMisses     int64 // conversations
	TokenisedHits, TokenisedMisses int64 // runs of text long enough to be looked for
}

// conversation is a conversation under the key that it was looked up by.
type conversation struct {
	key string
	written
}

// run is a run of text of one model's.
type run struct {
	model uint64
	text  string
	ids   []int32
}

// overhead is about what an entry takes beside its bytes.
const overhead = 128

// NewCache makes a cache, to be closed after the models that use it.
func NewCache(opt CacheOptions) (*Cache, error) {
	var c Cache
	var err, also error
	if opt.Written > 0 {
		c.conversations, err = ristretto.NewCache(&ristretto.Config[string, conversation]{
			NumCounters: counters(opt.Written, 4<<10), MaxCost: opt.Written, BufferItems: 64, IgnoreInternalCost: true,
		})
	}
	if opt.Tokenised > 0 {
		c.runs, also = ristretto.NewCache(&ristretto.Config[uint64, run]{
			NumCounters: counters(opt.Tokenised, 1<<10), MaxCost: opt.Tokenised, BufferItems: 64, IgnoreInternalCost: true,
		})
	}
	if err = errors.Join(err, also); err != nil {
		c.Close()
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return &c, nil
}

// counters is how many keys to count for a cache whose entries have so many bytes: ten times those that fit.
func counters(bytes, entry int64) int64 { return min(max(10*bytes/entry, 1<<10), 1<<22) }

// Close ends the cache's goroutines.
func (c *Cache) Close() {
	if c == nil {
		return
	}
	if c.conversations != nil {
		c.conversations.Close()
	}
	if c.runs != nil {
		c.runs.Close()
	}
}

// Counters are what was found and what was not.
func (c *Cache) Counters() CacheCounters {
	if c == nil {
		return CacheCounters{}
	}
	n := &c.counts
	return CacheCounters{n.writtenHits.Load(), n.writtenMisses.Load(), n.tokenHits.Load(), n.tokenMisses.Load()}
}

// Cache is what the models' cache found and did not.
func (p *Pool) Cache() CacheCounters { return p.opt.Cache.Counters() }

// key is the key of what a model's template makes of turns and of what else a request gives it; "" where nothing is kept.
func (c *Cache) key(model uint64, turns []Turn, r *ChatRequest) string {
	if c == nil || c.conversations == nil {
		return ""
	}
	h := sha256.New()
	var buf []byte
	number := func(n int) { buf = binary.AppendUvarint(buf, uint64(n)) }
	said := func(all ...string) {
		for _, s := range all {
			number(len(s))
			buf = append(buf, s...)
		}
		h.Write(buf)
		buf = buf[:0]
	}
	buf = binary.AppendUvarint(buf, model)
	said(r.Template, r.Suffix)
	if t := r.Think; t != nil {
		said(fmt.Sprint(t.On), t.Level)
	} else {
		said("")
	}
	number(len(r.TemplateArgs))
	for _, a := range r.TemplateArgs {
		said(a.Key)
		buf = a.Value.AppendKey(buf)
	}
	for i := range turns {
		t := &turns[i]
		said(t.Role, t.Content, t.Name, t.Reasoning, t.CallID)
		number(len(t.Calls))
		for _, call := range t.Calls {
			said(call.ID, call.Name, call.Arguments)
		}
	}
	h.Write(buf)
	return string(h.Sum(nil))
}

// written finds a conversation.
func (c *Cache) written(key string) (written, bool) {
	if key == "" {
		return written{}, false
	}
	if k, ok := c.conversations.Get(key); ok && k.key == key {
		c.counts.writtenHits.Add(1)
		return k.written, true
	}
	c.counts.writtenMisses.Add(1)
	return written{}, false
}

func (c *Cache) keepWritten(key string, w written) {
	if key == "" {
		return
	}
	cost := int64(overhead)
	for _, s := range w.spans {
		cost += int64(len(s.Text)) + 32
	}
	c.conversations.Set(key, conversation{key, w}, cost)
}

// remembering is a model's tokenizer with this cache as its memo.
func (c *Cache) remembering(t text.Tokenizer, model uint64) text.Tokenizer {
	if c == nil || c.runs == nil {
		return t
	}
	return text.Remembering(t, memo{c, model})
}

// memo is a cache as one model sees it.
type memo struct {
	*Cache
	model uint64
}

func (m memo) hash(s string) uint64 { return xxhash.Sum64String(s) ^ m.model*0x9E3779B97F4A7C15 }

// Find implements text.Memo. That two texts have one key costs time and nothing else.
func (m memo) Find(s string) ([]int32, bool) {
	if r, ok := m.runs.Get(m.hash(s)); ok && r.model == m.model && r.text == s {
		m.counts.tokenHits.Add(1)
		return r.ids, true
	}
	m.counts.tokenMisses.Add(1)
	return nil, false
}

// Keep implements text.Memo.
func (m memo) Keep(s string, ids []int32) {
	m.runs.Set(m.hash(s), run{m.model, strings.Clone(s), slices.Clone(ids)}, int64(len(s)+4*len(ids)+overhead))
}
