package text

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of SentencePiece's ModelProto, and of the messages in it, that a BPE tokenizer depends on.
const (
	fieldPieces     = 1
	fieldTrainer    = 2
	fieldNormalizer = 3

	pieceText  = 1
	pieceScore = 2
	pieceType  = 3

	trainerModelType = 3
	trainerUnkID     = 40
	trainerBOSID     = 41
	trainerEOSID     = 42
	trainerPadID     = 43

	normalizerDummyPrefix = 3
	normalizerEscape      = 5

	modelTypeBPE = 2
)

// ParseSentencePiece reads a tokenizer.model. Only BPE models are supported. Runs of spaces are kept, as
// llama.cpp and transformers do, whatever the file says about extra ones; its normalization rules are not
// applied.
func ParseSentencePiece(b []byte) (*Vocab, error) {
	// The defaults are those of SentencePiece's own schema.
	v := &Vocab{Model: "llama", UNK: 0, BOS: 1, EOS: 2, PAD: -1, AddBOS: true, AddSpacePrefix: true}
	modelType := uint64(1)
	err := fields(b, func(num protowire.Number, f field) error {
		switch num {
		case fieldPieces:
			return v.addPiece(f.bytes)
		case fieldTrainer:
			return fields(f.bytes, func(num protowire.Number, f field) error {
				switch num {
				case trainerModelType:
					modelType = f.number
				case trainerUnkID:
					v.UNK = f.id()
				case trainerBOSID:
					v.BOS = f.id()
				case trainerEOSID:
					v.EOS = f.id()
				case trainerPadID:
					v.PAD = f.id()
				}
				return nil
			})
		case fieldNormalizer:
			return fields(f.bytes, func(num protowire.Number, f field) error {
				switch {
				case num == normalizerDummyPrefix:
					v.AddSpacePrefix = f.number != 0
				case num == normalizerEscape && f.number == 0:
					return bad("normalizer_spec leaves spaces as they are")
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(v.Tokens) == 0 {
		return nil, bad("no pieces")
	}
	if modelType != modelTypeBPE {
		return nil, bad("model_type %d is not BPE", modelType)
	}
	for _, id := range []*int32{&v.UNK, &v.BOS, &v.EOS, &v.PAD} {
		if *id < 0 || int(*id) >= len(v.Tokens) {
			*id = -1
		}
	}
	return v, nil
}

// addPiece reads one SentencePiece message.
func (v *Vocab) addPiece(b []byte) error {
	text, score, kind := "", float32(0), uint64(TypeNormal)
	err := fields(b, func(num protowire.Number, f field) error {
		switch num {
		case pieceText:
			text = string(f.bytes)
		case pieceScore:
			score = math.Float32frombits(uint32(f.number))
		case pieceType:
			kind = f.number
		}
		return nil
	})
	if err != nil {
		return err
	}
	i := len(v.Tokens)
	if i == maxTokens {
		return bad("more than %d pieces", maxTokens)
	}
	if kind < TypeNormal || kind > TypeByte {
		return bad("pieces[%d] has type %d", i, kind)
	}
	if kind == TypeUserDefined {
		text = strings.ReplaceAll(text, metaspace, " ")
	}
	v.Tokens = append(v.Tokens, text)
	v.Scores = append(v.Scores, score)
	v.Types = append(v.Types, int32(kind))
	return nil
}

// field is the value of a protobuf field: bytes, or a number of any width as bits.
type field struct {
	bytes  []byte
	number uint64
}

// id is the value as a token id; what does not fit is none.
func (f field) id() int32 {
	if n := int64(f.number); n >= 0 && n < maxTokens {
		return int32(n)
	}
	return -1
}

// fields calls each for every field of a message, in order.
func fields(b []byte, each func(num protowire.Number, f field) error) error {
	size := len(b)
	for len(b) > 0 {
		at := size - len(b)
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return bad("tokenizer.model: no field at byte %d of its message", at)
		}
		b = b[n:]
		var f field
		switch kind {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			f.number = uint64(x)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return bad("tokenizer.model: field %d at byte %d of its message is cut short", num, at)
		}
		b = b[n:]
		if err := each(num, f); err != nil {
			return err
		}
	}
	return nil
}
