package text_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/winnow-llm/winnow/text"
)

// ggufVocab reads the tokenizer keys of a GGUF file that the tests trust.
func ggufVocab(path string) (*text.Vocab, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &ggufReader{r: bufio.NewReader(f)}
	if m := r.u32(); m != 0x46554747 {
		return nil, fmt.Errorf("magic %#x", m)
	}
	r.u32()
	r.u64()
	kv := map[string]any{}
	for range r.u64() {
		key := r.str()
		kv[key] = r.value(r.u32())
	}
	id := func(key string) int32 {
		if n, ok := kv["tokenizer.ggml."+key].(float64); ok {
			return int32(n)
		}
		return -1
	}
	v := &text.Vocab{BOS: id("bos_token_id"), EOS: id("eos_token_id"), UNK: id("unknown_token_id"), PAD: id("padding_token_id")}
	v.Model, _ = kv["tokenizer.ggml.model"].(string)
	v.Pre, _ = kv["tokenizer.ggml.pre"].(string)
	space, set := kv["tokenizer.ggml.add_space_prefix"].(bool)
	v.AddSpacePrefix = v.Model == "llama" && (space || !set)
	for _, s := range list(kv["tokenizer.ggml.tokens"]) {
		v.Tokens = append(v.Tokens, s.(string))
	}
	for _, s := range list(kv["tokenizer.ggml.merges"]) {
		v.Merges = append(v.Merges, s.(string))
	}
	for _, s := range list(kv["tokenizer.ggml.token_type"]) {
		v.Types = append(v.Types, int32(s.(float64)))
	}
	for _, s := range list(kv["tokenizer.ggml.scores"]) {
		v.Scores = append(v.Scores, float32(s.(float64)))
	}
	return v, r.err
}

func list(v any) []any { l, _ := v.([]any); return l }

type ggufReader struct {
	r   io.Reader
	err error
}

func (g *ggufReader) bytes(n uint64) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(g.r, b); err != nil && g.err == nil {
		g.err = err
	}
	return b
}

func (g *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(g.bytes(4)) }
func (g *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(g.bytes(8)) }
func (g *ggufReader) str() string { return string(g.bytes(g.u64())) }

// value reads a value of a GGUF type; numbers become float64.
func (g *ggufReader) value(kind uint32) any {
	switch kind {
	case 0, 1:
		return float64(g.bytes(1)[0])
	case 2, 3:
		return float64(binary.LittleEndian.Uint16(g.bytes(2)))
	case 4:
		return float64(g.u32())
	case 5:
		return float64(int32(g.u32()))
	case 6:
		return float64(math.Float32frombits(g.u32()))
	case 7:
		return g.bytes(1)[0] != 0
	case 8:
		return g.str()
	case 9:
		kind := g.u32()
		l := make([]any, g.u64())
		for i := range l {
			l[i] = g.value(kind)
		}
		return l
	}
	return float64(g.u64())
}
