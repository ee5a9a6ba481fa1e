package store

// Modelfile is what a model of the store says beside its weights, in the words of ollama's file of that name.
type Modelfile struct {
	From       string         // the model or the file that its weights are from
	Template   string         // Go template of a conversation; "" = the weights' own
	System     string         // message before every conversation that has none of its own
	Parameters map[string]any // by ollama's name, with values of JSON: "temperature": 0.7, "stop": ["</s>"]
	Messages   []Message      // a conversation's first turns
	License    []string
}

// Message is a turn of a conversation.
type Message struct {
	Role    string `json:"role"` // "system", "user" or "assistant"
	Content string `json:"content"`
}

// Progress is how far a change of the store is, in ollama's words.
type Progress struct {
	Status    string // "pulling manifest"
	Digest    string // of the file that it is about; "" = none
	Total     int64  // bytes of that file
	Completed int64  // bytes of it that are done
}
