package moe

import "errors"

// ErrOverlay is wrapped by every refusal of an overlay; the wrapping names layer and field.
var ErrOverlay = errors.New("moe: overlay")

// Overlay changes which experts of a model exist and how they are stored, without rewriting the model. A plan of experts, an overlay that is
// applied at load and a policy of bits are this one form. Layers that it does not list stay as they are.
//
// Layout: JSON, {"format":1,"model":"sha256 of the tensor table","method":"reap","keep":0.75,
// "layers":{"3":{"drop":[4,17],"merge":[[8,61]],"topk":8}},"bits":{"3":{"default":"Q4_K","over":{"12":"Q6_K"}}}}.
type Overlay struct {
	Format      int                  `json:"format"`                // 1
	Model       string               `json:"model,omitempty"`       // 64 hex: whose names, shapes and formats of tensors it was made for; "" = any
	Method      string               `json:"method,omitempty"`      // what made it: "stun", "reap"
	Keep        float64              `json:"keep,omitempty"`        // share of experts that it was to keep; 0 = not said
	Calibration *Calibration         `json:"calibration,omitempty"` // nil = none was needed
	Layers      map[int]OverlayLayer `json:"layers,omitempty"`      // by layer
	Bits        map[int]OverlayBits  `json:"bits,omitempty"`        // by layer
}

// Calibration is what a plan has seen.
type Calibration struct {
	Tokens int64  `json:"tokens"`
	SHA256 string `json:"sha256"` // of the text
}

// OverlayLayer changes the experts of a layer.
type OverlayLayer struct {
	Drop  []int   `json:"drop,omitempty"`  // router rows that are never chosen
	Merge [][]int `json:"merge,omitempty"` // router rows that share the weights of the first of them
	TopK  int     `json:"topk,omitempty"`  // experts a token; 0 = as the model says
}

// OverlayBits says in which formats a layer's experts are stored.
type OverlayBits struct {
	Default string         `json:"default"` // name of a quant.Format
	Over    map[int]string `json:"over,omitempty"`
}
