package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	maxChallenge = 8 << 10 // bytes of the header
	maxToken     = 64 << 10
	maxIdentity  = 64 << 10
)

// challenge is what a registry wants a token for, and where it is to be had.
type challenge struct{ realm, service, scope string }

// parseChallenge reads a WWW-Authenticate header: Bearer realm="https://host/token",service="...",scope="repository:library/x:pull".
func parseChallenge(h string) (c challenge, err error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
	if len(h) > maxChallenge || !strings.EqualFold(kind, "Bearer") {
		return c, fmt.Errorf("challenge %.100q is not for a Bearer token", h)
	}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return c, fmt.Errorf("challenge %.100q ends within a parameter", h)
		}
		var value string
		if value, rest, ok = parameterValue(strings.TrimLeft(after, " \t")); !ok {
			return c, fmt.Errorf("challenge %.100q has an open quotation", h)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "realm":
			c.realm = value
		case "service":
			c.service = value
		case "scope":
			c.scope = value
		}
	}
	if c.realm == "" {
		return c, fmt.Errorf("challenge %.100q has no realm", h)
	}
	return c, nil
}

// parameterValue takes a value, quoted or not, off the beginning of s.
func parameterValue(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		end := strings.IndexByte(s, ',')
		if end < 0 {
			end = len(s)
		}
		return strings.TrimSpace(s[:end]), s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

func (l *link) credential() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// authorize gets a token in place of the one that was refused, unless another goroutine has meanwhile.
func (l *link) authorize(ctx context.Context, challenges []string, refused string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token != refused {
		return nil
	}
	bad := &RemoteError{Host: l.home.Host, What: "request for a token", Err: ErrDenied}
	if len(challenges) == 0 {
		bad.Limit = "no challenge"
		return bad
	}
	var c challenge
	var err error
	for _, h := range challenges {
		if c, err = parseChallenge(h); err == nil {
			break
		}
	}
	if err != nil {
		bad.Limit = err.Error()
		return bad
	}
	realm, err := url.Parse(c.realm)
	if err != nil || !l.isHome(realm) || realm.User != nil {
		bad.Limit = fmt.Sprintf("realm %.100q is not at %s://%s", c.realm, l.home.Scheme, l.home.Host)
		return bad
	}
	key, err := identity(l.identity)
	if err != nil {
		return err
	}
	l.token, err = l.askToken(ctx, realm, c, key)
	return err
}

// askToken asks the realm for a token, with a signature of the very address that is asked.
func (l *link) askToken(ctx context.Context, realm *url.URL, c challenge, key ssh.Signer) (string, error) {
	q := realm.Query()
	if c.service != "" {
		q.Set("service", c.service)
	}
	q.Del("scope")
	for scope := range strings.FieldsSeq(c.scope) {
		q.Add("scope", scope)
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	q.Set("ts", strconv.FormatInt(time.Now().Unix(), 10))
	q.Set("nonce", base64.RawURLEncoding.EncodeToString(nonce))
	realm.RawQuery = q.Encode()

	none := sha256.Sum256(nil) // the request has no body
	message := "GET," + realm.String() + "," + base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(none[:])))
	sig, err := key.Sign(rand.Reader, []byte(message))
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", l.identity, err)
	}
	signature := base64.StdEncoding.EncodeToString(key.PublicKey().Marshal()) + ":" + base64.StdEncoding.EncodeToString(sig.Blob)
	ask := call{what: "token", method: http.MethodGet, url: realm, header: http.Header{"Authorization": {signature}}}
	resp, err := l.send(ctx, ask, "") // and no redirect: the signature is for this address
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", refusal(resp, ask.what)
	}
	defer resp.Body.Close()
	var answer struct {
		Token  string
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxToken)).Decode(&answer); err != nil {
		return "", &RemoteError{Host: realm.Host, What: ask.what, Limit: err.Error(), Err: ErrRemote}
	}
	if answer.Token == "" {
		answer.Token = answer.Access
	}
	if answer.Token == "" {
		return "", &RemoteError{Host: realm.Host, What: ask.what, Limit: "the answer holds none", Err: ErrRemote}
	}
	return answer.Token, nil
}

// identity reads the user's key, and makes one where there is none.
func identity(path string) (ssh.Signer, error) {
	raw, err := readSmall(path, maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeIdentity(path); err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		raw, err = readSmall(path, maxIdentity)
	}
	if err != nil {
		return nil, err
	}
	bad := &FileError{File: path, Part: "key", Err: ErrUnsupported}
	key, err := ssh.ParseRawPrivateKey(raw)
	if err != nil {
		bad.Limit = err.Error()
		return nil, bad
	}
	own, ok := key.(*ed25519.PrivateKey)
	if !ok {
		bad.Limit = fmt.Sprintf("a %T, registries know users by ed25519 keys", key)
		return nil, bad
	}
	signer, err := ssh.NewSignerFromKey(own)
	if err != nil {
		bad.Limit = err.Error()
		return nil, bad
	}
	return signer, nil
}

// makeIdentity writes a new key that only its owner may read, and beside it, in path.pub, what its owner tells registries. Where another
// process is faster, its key stays.
func makeIdentity(path string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "winnow")
	if err != nil {
		return err
	}
	shown, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fileError(dir, err)
	}
	f, err := os.CreateTemp(dir, prefixTemp+"*") // mode 0600
	if err != nil {
		return fileError(dir, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(pem.EncodeToMemory(block))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fileError(path, err)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return fileError(path, err)
	}
	if err := os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(shown), 0o644); err != nil {
		return fileError(path+".pub", err)
	}
	return nil
}
