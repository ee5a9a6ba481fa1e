package text

// Stops watches a text for stop strings and holds back what might be the beginning of one. One goroutine.
type Stops struct {
	stops   []stop
	held    []byte
	stopped bool
}

// stop is one stop string and how much of it the text so far ends with.
type stop struct {
	text string
	back []int // back[n]: the longest proper beginning of text[:n] that is also its end
	have int
}

// NewStops watches for stops; empty ones are ignored.
func NewStops(stops []string) *Stops {
	s := &Stops{}
	for _, text := range stops {
		if text == "" {
			continue
		}
		back := make([]int, len(text)+1)
		for n, k := 1, 0; n < len(text); n++ {
			for k > 0 && text[n] != text[k] {
				k = back[k]
			}
			if text[n] == text[k] {
				k++
			}
			back[n+1] = k
		}
		s.stops = append(s.stops, stop{text: text, back: back})
	}
	return s
}

// feed takes one byte and says whether it completes the stop string.
func (s *stop) feed(c byte) bool {
	for s.have > 0 && s.text[s.have] != c {
		s.have = s.back[s.have]
	}
	if s.text[s.have] == c {
		s.have++
	}
	return s.have == len(s.text)
}

// Push takes more text and returns what is sure to stand before any stop string. The stop string that ends
// first ends the text, the longest where several end together; after that Push returns nothing more.
func (s *Stops) Push(text string) (out string, stopped bool) {
	if s.stopped {
		return "", true
	}
	if len(s.stops) == 0 {
		return text, false
	}
	for i := 0; i < len(text); i++ {
		longest := 0
		for k := range s.stops {
			if s.stops[k].feed(text[i]) {
				longest = max(longest, len(s.stops[k].text))
			}
		}
		if longest > 0 {
			s.stopped = true
			s.held = append(s.held, text[:i+1]...)
			out = string(s.held[:len(s.held)-longest])
			s.held = nil
			return out, true
		}
	}
	keep := 0
	for k := range s.stops {
		keep = max(keep, s.stops[k].have)
	}
	s.held = append(s.held, text...)
	n := len(s.held) - keep
	out = string(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return out, false
}

// Flush ends the text and returns what was held back.
func (s *Stops) Flush() string {
	out := string(s.held)
	s.held = nil
	return out
}
