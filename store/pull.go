package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ollama/ollama/types/model"
)

// maxLayers limits the files of a model: each costs a request.
const maxLayers = 1000

// origin is where a name says that a model is.
type origin struct {
	name model.Name
	base *url.URL // of the registry or the hub
	hub  bool     // hf.co/ORG/REPO
	tag  string   // as it was said; "" = the default one
}

// hubHosts are the hub's names for itself, whichever address stands in for it.
var hubHosts = []string{"hf.co", "huggingface.co"}

// origin reads NAME[:TAG], HOST[:PORT]/NAMESPACE/MODEL[:TAG] with or without http:// or https:// before it, and hf.co/ORG/REPO[:QUANT].
func (r Remote) origin(name string) (o origin, err error) {
	if _, ok := cutWeb(name); ok && strings.EqualFold(path.Ext(name), ".gguf") {
		return o, fmt.Errorf("%w: %.200q is the address of a file, which is pulled by its sha256", ErrName, name)
	}
	bare := model.ParseNameBare(name)
	o.name, o.tag = model.Merge(bare, model.DefaultName()), bare.Tag
	if !o.name.IsValid() {
		return o, fmt.Errorf("%w: %.100q", ErrName, name)
	}
	scheme := bare.ProtocolScheme
	if scheme == "" {
		scheme = "https"
		if r.Insecure {
			scheme = "http"
		}
	}
	if scheme != "https" && scheme != "http" {
		return o, fmt.Errorf("%w: %.100q: registries are reached by https", ErrName, name)
	}
	at := scheme + "://" + o.name.Host
	if o.hub = slices.ContainsFunc(hubHosts, func(h string) bool { return strings.EqualFold(h, o.name.Host) }); o.hub {
		at = cmp.Or(r.HuggingFace, "https://huggingface.co")
	}
	if o.base, err = url.Parse(at); err != nil || o.base.Host == "" || o.base.User != nil {
		return o, fmt.Errorf("%w: %.100q is no address", ErrName, at)
	}
	if o.base.Scheme == "http" && !r.Insecure {
		return o, &RemoteError{Host: o.base.Host, What: "pull of " + o.name.DisplayShortest(), Err: ErrPlain}
	}
	return o, nil
}

// cutWeb takes http:// or https:// off an address.
func cutWeb(s string) (rest string, ok bool) {
	for _, scheme := range []string{"https://", "http://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return s[len(scheme):], true
		}
	}
	return s, false
}

// Pull brings a model from a registry that speaks ollama's protocol, or from Hugging Face's hub (hf.co/ORG/REPO[:QUANT]), in place of the
// one that has the name, and goes on where an earlier pull has stopped. Everything is checked by its digest; the model is there when Pull
// returns nil, and not before. see, which may be nil, is told of the progress, one state at a time.
//
// What only an older model of the name had goes, as with Remove.
//
// Errors: ErrName; ErrExists: a file that the user placed has the name; *RemoteError for troubles with other machines, *FileError for those of
// this one, and the context's.
func (s Store) Pull(ctx context.Context, name string, r Remote, see func(Progress)) error {
	return s.PullAs(ctx, name, "", r, see)
}

// PullAs is Pull for a model that gets another name here; as "" it keeps its own.
func (s Store) PullAs(ctx context.Context, name, as string, r Remote, see func(Progress)) error {
	o, err := r.origin(name)
	if err != nil {
		return err
	}
	to := o.name
	if as != "" {
		if to = model.ParseName(as); !to.IsValid() {
			return fmt.Errorf("%w: %.100q", ErrName, as)
		}
	}
	a, err := s.add(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	l := r.link(o.base, see)
	defer l.close()
	l.tell(Progress{Status: "pulling manifest"})
	if o.hub {
		l.token = r.Token
		err = a.fromHub(ctx, l, o, as)
	} else {
		l.identity = r.Identity
		err = a.fromRegistry(ctx, l, o, to)
	}
	if err != nil {
		return err
	}
	a.end(ctx, l)
	return nil
}

// end gives the store back after a pull, without what the model has taken the place of.
func (a *addition) end(ctx context.Context, l *link) {
	a.Close()
	a.store.discard(context.WithoutCancel(ctx), a.replaced)
	l.tell(Progress{Status: "success"})
}

// fromRegistry adds a model by its manifest, which is kept as it came.
func (a *addition) fromRegistry(ctx context.Context, l *link, o origin, to model.Name) error {
	if err := a.replace(to); err != nil {
		return err
	}
	base := o.base.JoinPath("v2", o.name.Namespace, o.name.Model)
	what := "manifest of " + o.name.DisplayShortest()
	raw, _, err := l.read(ctx, call{what: what, method: http.MethodGet, url: base.JoinPath("manifests", o.name.Tag),
		header: http.Header{"Accept": {typeManifest}}}, maxManifest)
	if err != nil {
		return unknown(err)
	}
	m, err := parseManifest(raw)
	bad := &RemoteError{Host: o.base.Host, What: what, Err: ErrFormat}
	if err != nil {
		bad.Limit = err.Error()
		return bad
	}
	files, err := a.wants(m)
	if err != nil {
		bad.Limit = err.Error()
		return bad
	}
	for _, w := range files {
		w.link, w.url = l, base.JoinPath("blobs", w.digest)
	}
	if err := a.fetch(ctx, l, files); err != nil {
		return err
	}
	l.tell(Progress{Status: "writing manifest"})
	return a.writeRaw(to, raw)
}

// unknown makes ErrNoModel of the answer that there is no such thing.
func unknown(err error) error {
	if e, ok := errors.AsType[*RemoteError](err); ok && e.Status == http.StatusNotFound {
		e.Err = ErrNoModel
	}
	return err
}

// wants lists the blobs that a manifest names, each once.
func (a *addition) wants(m manifest) (files []*wanted, err error) {
	all := m.Layers
	if m.Config.Digest != "" {
		all = append([]layer{m.Config}, m.Layers...)
	}
	if len(all) > maxLayers {
		return nil, fmt.Errorf("%d layers, at most %d are pulled", len(all), maxLayers)
	}
	sizes := map[string]int64{}
	for _, l := range all {
		digest := strings.Replace(l.Digest, "-", ":", 1)
		if l.MediaType == layerTensor {
			return nil, fmt.Errorf("weights in one blob per tensor, which are not read")
		}
		if size, ok := sizes[digest]; ok {
			if size != l.Size {
				return nil, fmt.Errorf("%s has %d bytes and %d", digest, size, l.Size)
			}
			continue
		}
		sizes[digest] = l.Size
		if l.Size > maxBlob {
			return nil, fmt.Errorf("%s has %d bytes, at most %d are pulled", digest, l.Size, int64(maxBlob))
		}
		files = append(files, a.want(digest, l.Size))
	}
	return files, nil
}

// want is a blob of the store that has yet to come.
func (a *addition) want(digest string, size int64) *wanted {
	short := digest[len("sha256:"):][:12]
	return &wanted{what: "blob " + digest, status: "pulling " + short, digest: digest, size: size, path: a.store.blob(digest)}
}

// fetch brings blobs.
func (a *addition) fetch(ctx context.Context, l *link, files []*wanted) error {
	dir := filepath.Join(a.store.Root, "blobs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fileError(dir, err)
	}
	return l.fetchAll(ctx, files)
}

// File is a GGUF file on any machine.
type File struct {
	URL    string // https://HOST/path/file.gguf
	SHA256 string // 64 hex, upper or lower case; without it a file is not pulled
	Name   string // of the model that it becomes; "" = the file's own, without .gguf
}

// PullFile is Pull for a GGUF file by its address.
func (s Store) PullFile(ctx context.Context, f File, r Remote, see func(Progress)) error {
	u, err := url.Parse(f.URL)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%w: %.200q is no address of a file", ErrName, f.URL)
	}
	if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 {
		return fmt.Errorf("%w: %.200q is pulled by its sha256, 64 hex digits, and %.80q is none", ErrName, f.URL, f.SHA256)
	}
	name := model.ParseName(cmp.Or(f.Name, ModelName(path.Base(u.Path))))
	if !name.IsValid() {
		return fmt.Errorf("%w: %.100q; give the model another one", ErrName, cmp.Or(f.Name, path.Base(u.Path)))
	}
	a, err := s.add(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.replace(name); err != nil {
		return err
	}
	l := r.link(u, see)
	defer l.close()
	w := a.want("sha256:"+strings.ToLower(f.SHA256), 0)
	w.link, w.url, w.what = l, u, "file "+path.Base(u.Path)
	if st, err := os.Stat(w.path); err == nil {
		w.size = st.Size() // its bytes were checked before it got its name
	} else if w.size, err = l.sizeOf(ctx, w); err != nil {
		return err
	}
	if err := a.fetch(ctx, l, []*wanted{w}); err != nil {
		return err
	}
	if err := a.model(l, name, w); err != nil {
		return err
	}
	a.end(ctx, l)
	return nil
}

// sizeOf asks how many bytes a file has.
func (l *link) sizeOf(ctx context.Context, w *wanted) (size int64, err error) {
	err = l.persist(ctx, func() (int64, error) {
		resp, err := w.ask(ctx, http.Header{"Range": {"bytes=0-0"}})
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusPartialContent:
			_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
			if _, err := fmt.Sscanf(total, "%d", &size); err != nil {
				size = -1
			}
		case http.StatusOK:
			size = resp.ContentLength
		default:
			return 0, refusal(resp, w.what)
		}
		if size < 0 {
			return 0, w.wrong(ErrRemote, "does not say how many bytes it has")
		}
		if size > maxBlob {
			return 0, w.wrong(ErrUnsupported, "%d bytes, at most %d are pulled", size, int64(maxBlob))
		}
		return 0, nil
	})
	return size, unknown(err)
}

// model makes a model of a GGUF file that is in the store. One that is no GGUF is removed again.
func (a *addition) model(l *link, n model.Name, w *wanted) error {
	l.tell(Progress{Status: "writing manifest"})
	about := model.ConfigV2{ModelFormat: "gguf", Architecture: "amd64", OS: "linux"}
	c, err := Open(w.path)
	if errors.Is(err, ErrFormat) {
		if err = w.wrong(ErrFormat, "%s", strings.TrimSuffix(err.Error(), ": "+ErrFormat.Error())); w.came {
			err = errors.Join(err, os.Remove(w.path))
		}
		return err
	}
	if err == nil {
		about.ModelFamily, _ = c.Meta.String("general.architecture", "")
		about.ModelFamilies = []string{about.ModelFamily}
		about.FileType = quantOf(w.url.Path)
		if err := c.Close(); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("encode the configuration of %s: %w", n.DisplayShortest(), err)
	}
	config, err := a.blob(strings.NewReader(string(raw)), "")
	if err != nil {
		return err
	}
	config.MediaType = typeConfig
	return a.write(n, manifest{Config: config, Layers: []layer{{MediaType: layerModel, Digest: w.digest, Size: w.size}}})
}
