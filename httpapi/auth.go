package httpapi

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// ErrKeys is a file of keys that breaks its rules.
var ErrKeys = errors.New("damaged file of keys")

// Keys are who may call. They are read from a file, which is looked at again while requests come: a line that is taken out revokes its
// key within a second. Its methods may be called from any goroutine.
//
// Layout: UTF-8 text. A line is a name of 1 to 64 printable characters without spaces, a space, and "sha256:" with the 64 hex digits of the
// key's SHA-256. Empty lines and those that begin with # mean nothing. Keys are random and long, so one round of a fast hash keeps them.
type Keys struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	looked time.Time // when the file was last looked at
	seen   os.FileInfo
	list   []holder
}

// holder is who has a key.
type holder struct {
	name string
	sum  [sha256.Size]byte
}

// Limits of a file of keys.
const (
	mostKeyBytes = 1 << 20
	mostKeyName  = 64
	keyInterval  = time.Second // between two looks at the file
)

// OpenKeys reads a file of keys. Later faults of the file are logged, and what was read last holds on.
func OpenKeys(path string, log *slog.Logger) (*Keys, error) {
	k := &Keys{path: path, log: log}
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return k, nil
}

// NewKey makes a key and the line that lets its holder in.
func NewKey(name string) (key, line string, err error) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	key = "wn-" + base64.RawURLEncoding.EncodeToString(secret)
	line = fmt.Sprintf("%s sha256:%x\n", name, sha256.Sum256([]byte(key)))
	_, err = parseKeys([]byte(line))
	return key, line, err
}

// Holder is who has a key. The time that it takes says nothing about keys but how many there are.
func (k *Keys) Holder(key string) (name string, ok bool) {
	sum := sha256.Sum256([]byte(key))
	for _, h := range k.current() {
		if subtle.ConstantTimeCompare(sum[:], h.sum[:]) == 1 {
			name, ok = h.name, true
		}
	}
	return name, ok
}

// current is the list, read again if the file has changed.
func (k *Keys) current() []holder {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.looked) < keyInterval {
		return k.list
	}
	st, err := os.Stat(k.path)
	if err == nil && os.SameFile(st, k.seen) && st.ModTime().Equal(k.seen.ModTime()) && st.Size() == k.seen.Size() {
		k.looked = time.Now()
		return k.list
	}
	if err := k.read(); err != nil {
		k.looked = time.Now()
		k.log.Error("keys cannot be read again; the last ones hold on", "err", err)
	}
	return k.list
}

// read takes the file in whole, or not at all.
func (k *Keys) read() error {
	f, err := os.Open(k.path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(f, mostKeyBytes+1))
	if err != nil {
		return err
	}
	list, err := parseKeys(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.list, k.seen, k.looked = list, st, time.Now()
	return nil
}

// parseKeys reads the lines of a file.
func parseKeys(raw []byte) (list []holder, err error) {
	if len(raw) > mostKeyBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrKeys, mostKeyBytes)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, mostKeyBytes+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, digest, _ := strings.Cut(line, " ")
		if !printable(name) || len(name) > mostKeyName {
			return nil, fmt.Errorf("%w: line %d: name %.80q, want 1 to %d printable ASCII characters", ErrKeys, n, name, mostKeyName)
		}
		digits, found := strings.CutPrefix(strings.TrimSpace(digest), "sha256:")
		sum, err := hex.DecodeString(digits)
		if !found || err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("%w: line %d: %.80q after the name, want sha256: and %d hex digits", ErrKeys, n, digest, 2*sha256.Size)
		}
		h := holder{name: name, sum: [sha256.Size]byte(sum)}
		if slices.ContainsFunc(list, func(o holder) bool { return o.sum == h.sum }) {
			return nil, fmt.Errorf("%w: line %d: a key that an earlier line has", ErrKeys, n)
		}
		list = append(list, h)
	}
	return list, lines.Err()
}

// open are the routes that need no key: what load balancers and clients ask before they have one.
var open = []string{"/health", "/v1/models", "/models"}

// authenticate refuses requests without a key where the server has keys. A key comes as OpenAI's clients or as Anthropic's send it.
func (s *Server) authenticate(c *gin.Context) {
	if s.opt.Keys == nil || c.Request.Method == http.MethodGet && slices.Contains(open, c.Request.URL.Path) {
		return
	}
	key := c.GetHeader("X-Api-Key")
	if scheme, token, _ := strings.Cut(c.GetHeader("Authorization"), " "); strings.EqualFold(scheme, "bearer") {
		key = strings.TrimSpace(token)
	}
	if name, ok := s.opt.Keys.Holder(key); ok {
		c.Set(keyName, name)
		return
	}
	s.telemetry.refusals.Add(c.Request.Context(), 1)
	c.Header("WWW-Authenticate", "Bearer")
	f := &fault{Status: http.StatusUnauthorized, Type: typeAuth, Code: "invalid_api_key", Message: "the key is not one of this server's"}
	if key == "" {
		f.Message = "a key is needed: Authorization: Bearer KEY"
	}
	s.fail(c, f)
}

// keyName is where a request's context has the name of its key's holder.
const keyName = "key"
