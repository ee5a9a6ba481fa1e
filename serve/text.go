package serve

import (
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// Text is what of a checkpoint turns conversations into ids and ids into text, without its network. The template is nil, and the
// error none, where the checkpoint has no template that can be used.
func Text(c *store.Checkpoint) (text.Tokenizer, *text.Template, error) {
	v, err := vocabulary(c)
	if err != nil {
		return nil, nil, err
	}
	tok, err := text.NewTokenizer(v)
	if err != nil {
		return nil, nil, err
	}
	tmpl, err := chatTemplate(c)
	if err != nil {
		tmpl = nil
	}
	return tok, tmpl, nil
}
