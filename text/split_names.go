package text

// preTokenizer is what a name in tokenizer.ggml.pre stands for.
type preTokenizer struct {
	names        []string
	split        []string
	ignoreMerges bool
}

// preTokenizers is searched in order, so the first that has given expressions also names them.
var preTokenizers = []preTokenizer{
	{names: []string{"gpt-2", "mpt", "olmo", "jais", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code",
		"roberta-bpe", "modern-bert", "gigachat", "trillion", "granite-docling", "exaone4", "a.x-4.0", "mellum"}, split: []string{reGPT2}},
	{names: []string{"qwen2", "stablelm2", "hunyuan", "deepseek-r1-qwen", "kormo", "megrez", "grok-2", "solar-open", "f2llmv2"}, split: []string{reQwen2}},
	{names: []string{"bailingmoe", "bailingmoe2", "llada-moe"}, split: []string{reBailing}},
	{names: []string{"qwen35"}, split: []string{reQwen35}},
	{names: []string{"seed-coder"}, split: []string{reSeed}},
	{names: []string{"laguna"}, split: []string{reLines, reQwen2}},
	{names: []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}, split: []string{reLlama3},
		ignoreMerges: true},
	{names: []string{"glm4", "chatglm-bpe", "dbrx", "smaug-bpe"}, split: []string{reLlama3}},
	{names: []string{"minicpm5"}, split: []string{reDigits3, reLlama3}, ignoreMerges: true},
	{names: []string{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, split: []string{reGPT4o}},
	{names: []string{"tekken"}, split: []string{reTekken}, ignoreMerges: true},
	{names: []string{"kimi-k2"}, split: []string{reKimi}},
	{names: []string{"youtu"}, split: []string{reYoutu, reYoutuWords}, ignoreMerges: true},
	{names: []string{"exaone-moe"}, split: []string{reExaoneMoE}},
	{names: []string{"smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"}, split: []string{reDigit, reGPT2}},
	{names: []string{"falcon"}, split: []string{rePunctTick, reGPT2, reTriple}},
	// What llama.cpp does with a byte-level file that names no pre-tokenizer.
	{names: []string{"default", ""}, split: []string{rePunct, reGPT2, reDigits, reTriple}},
	{names: []string{"deepseek-llm"}, split: []string{reLine, reDeepseekLetters, reDeepseekPunct, reTrailing, reHanHangul, reDigits}},
	{names: []string{"deepseek-coder"}, split: []string{reLine, reSpacedLetters, reSpacedPunct, reHanHangul, reDigit}},
	{names: []string{"deepseek-v3", "hunyuan-dense", "joyai-llm"}, split: []string{reDigits3, reHanKana, reDeepseek3}},
	{names: []string{"afmoe"}, split: []string{reGroups, reAsia, reDeepseek3}},
	{names: []string{"bloom", "poro-chat", "gpt3-finnish"}, split: []string{reBloom}},
	{names: []string{"viking"}, split: []string{reBloom, reDigit}},
}

// preTokenizerOf finds what v asks for. A name nobody knows is an error, since a wrong pre-tokenizer gives
// worse text and no complaint.
func preTokenizerOf(v *Vocab) (preTokenizer, error) {
	if v.Pre == "" && len(v.SplitRegex) > 0 {
		return preTokenizer{split: v.SplitRegex}, nil
	}
	for _, p := range preTokenizers {
		for _, n := range p.names {
			if n == v.Pre {
				return p, nil
			}
		}
	}
	return preTokenizer{}, bad("pre-tokenizer %q is unknown", v.Pre)
}

// namePre is the name of a list of expressions, or "".
func namePre(split []string) string {
	for _, p := range preTokenizers {
		same := len(p.split) == len(split)
		for i := 0; same && i < len(split); i++ {
			same = p.split[i] == split[i]
		}
		if same {
			return p.names[0]
		}
	}
	return ""
}
