package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ollama/ollama/types/model"
	"golang.org/x/sync/errgroup"
)

const (
	pushPart = 100 << 20 // bytes of a blob that go at once
	pushSide = 4         // blobs that go side by side
)

// Push sends a model of the store to the registry of its name. What the registry has already is not sent. see, which may be nil, is told of
// the progress, one state at a time.
//
// Errors: ErrName, ErrNoModel (a plain file or folder has no manifest to send), *RemoteError, *FileError, and the context's.
func (s Store) Push(ctx context.Context, name string, r Remote, see func(Progress)) error {
	o, err := r.origin(name)
	if err != nil {
		return err
	}
	if o.hub {
		return &RemoteError{Host: o.base.Host, What: "push of " + o.name.DisplayShortest(), Limit: "the hub takes no models this way", Err: ErrUnsupported}
	}
	a, err := s.add(ctx) // the blobs stay while they are sent
	if err != nil {
		return err
	}
	defer a.Close()
	l := r.link(o.base, see)
	defer l.close()
	l.identity = r.Identity
	l.tell(Progress{Status: "retrieving manifest"})
	path := s.manifestPath(o.name)
	raw, err := readSmall(path, maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s has no manifest in %s", ErrNoModel, o.name.DisplayShortest(), s.Root)
	}
	if err != nil {
		return err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return &FileError{File: path, Part: "manifest", Limit: err.Error(), Err: ErrFormat}
	}
	base := o.base.JoinPath("v2", o.name.Namespace, o.name.Model)
	if err := a.send(ctx, l, base, m); err != nil {
		return err
	}
	l.tell(Progress{Status: "pushing manifest"})
	put := call{what: "manifest of " + o.name.DisplayShortest(), method: http.MethodPut, url: base.JoinPath("manifests", o.name.Tag),
		header: http.Header{"Content-Type": {typeManifest}}, body: func() io.Reader { return bytes.NewReader(raw) }, length: int64(len(raw))}
	if _, err := l.expect(ctx, put, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent); err != nil {
		return err
	}
	l.tell(Progress{Status: "success"})
	return nil
}

// send sends the blobs of a manifest, each once.
func (a *addition) send(ctx context.Context, l *link, base *url.URL, m manifest) error {
	files, err := a.wants(m)
	if err != nil {
		return &FileError{File: a.store.Root, Part: "manifest", Limit: err.Error(), Err: ErrUnsupported}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pushSide)
	for _, w := range files {
		up := &upload{link: l, base: base, layer: layer{Digest: w.digest, Size: w.size}, path: w.path}
		for _, own := range m.Layers {
			if strings.Replace(own.Digest, "-", ":", 1) == w.digest {
				up.layer.From = cmp.Or(up.layer.From, own.From)
			}
		}
		g.Go(func() error { return up.run(ctx) })
	}
	return g.Wait()
}

// expect makes a call until its answer has one of the statuses. It gives the answer, closed.
func (l *link) expect(ctx context.Context, c call, statuses ...int) (resp *http.Response, err error) {
	err = l.persist(ctx, func() (int64, error) {
		if resp, err = l.do(ctx, c); err != nil {
			return 0, err
		}
		for _, s := range statuses {
			if resp.StatusCode == s {
				drop(resp)
				return 0, nil
			}
		}
		return 0, refusal(resp, c.what)
	})
	return resp, err
}

// upload is a blob on its way out.
type upload struct {
	link  *link
	base  *url.URL // of the model's repository
	layer layer
	path  string

	mu   sync.Mutex // a request's body may be read for a moment longer than its answer takes
	told time.Time
}

func (u *upload) tell(done int64, now bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now || time.Since(u.told) >= seeEvery {
		u.told = time.Now()
		status := "pushing " + u.layer.Digest[len("sha256:"):][:12]
		u.link.tell(Progress{Status: status, Digest: u.layer.Digest, Total: u.layer.Size, Completed: done})
	}
}

// run sends the blob unless the registry has it.
func (u *upload) run(ctx context.Context) error {
	f, size, err := openRegular(u.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != u.layer.Size {
		return &FileError{File: u.path, Limit: fmt.Sprintf("%d bytes, should be %d", size, u.layer.Size), Err: ErrFormat}
	}
	u.tell(0, true)
	what := "blob " + u.layer.Digest
	head := call{what: what, method: http.MethodHead, url: u.base.JoinPath("blobs", u.layer.Digest)}
	resp, err := u.link.expect(ctx, head, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		u.tell(size, true)
		return nil
	}
	start := call{what: "upload of " + what, method: http.MethodPost, url: u.base.JoinPath("blobs", "uploads")}
	start.url.Path += "/"
	if from := model.ParseName(u.layer.From); u.layer.From != "" && from.IsValid() {
		start.url.RawQuery = url.Values{"mount": {u.layer.Digest}, "from": {from.DisplayNamespaceModel()}}.Encode()
	}
	resp, err = u.link.expect(ctx, start, http.StatusCreated, http.StatusAccepted, http.StatusOK)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusCreated { // mounted from there
		u.tell(size, true)
		return nil
	}
	to, err := u.link.uploadURL(start, resp)
	if err != nil {
		return err
	}
	return u.parts(ctx, f, to)
}

// uploadURL is where an upload goes on, by the answer to a call.
func (l *link) uploadURL(c call, resp *http.Response) (*url.URL, error) {
	said := cmp.Or(resp.Header.Get("Docker-Upload-Location"), resp.Header.Get("Location"))
	return l.leads(c, resp, said)
}

// leads is an address that an answer gives, when it may be called.
func (l *link) leads(c call, resp *http.Response, said string) (*url.URL, error) {
	if said == "" {
		return nil, &RemoteError{Host: c.url.Host, What: c.what, Limit: "the answer does not say where to", Err: ErrRemote}
	}
	from := resp.Request.URL
	next, err := from.Parse(said)
	if err != nil {
		return nil, &RemoteError{Host: c.url.Host, What: c.what, Limit: fmt.Sprintf("leads to %.100q", said), Err: ErrRemote}
	}
	c.url = next
	return next, l.permits(c, from)
}

// parts sends the blob piece by piece, each to the address that the answer to the one before names, and closes the upload.
func (u *upload) parts(ctx context.Context, f *os.File, to *url.URL) error {
	sums, n := md5.New(), 0 // of the parts' own sums, as object storage wants it
	for off := int64(0); off < u.layer.Size; off, n = off+pushPart, n+1 {
		part := io.NewSectionReader(f, off, min(pushPart, u.layer.Size-off))
		next, sum, err := u.part(ctx, part, off, to)
		if err != nil {
			return err
		}
		to = next
		sums.Write(sum)
	}
	end := call{what: "upload of blob " + u.layer.Digest, method: http.MethodPut, url: new(*to), header: http.Header{"Content-Type": {"application/octet-stream"}}}
	q := end.url.Query()
	q.Set("digest", u.layer.Digest)
	q.Set("etag", fmt.Sprintf("%x-%d", sums.Sum(nil), n))
	end.url.RawQuery = q.Encode()
	if _, err := u.link.expect(ctx, end, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent); err != nil {
		return err
	}
	u.tell(u.layer.Size, true)
	return nil
}

// part sends one piece and gives the address for the next.
func (u *upload) part(ctx context.Context, part *io.SectionReader, off int64, to *url.URL) (next *url.URL, md5sum []byte, err error) {
	c := call{what: "upload of blob " + u.layer.Digest, method: http.MethodPatch, url: to, length: part.Size()}
	c.header = http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", off, off+part.Size()-1)},
		"X-Redirect-Uploads": {"1"}, "Expect": {"100-continue"}} // so that a redirect comes before the bytes went out
	var last *sending
	c.body = func() io.Reader {
		last = &sending{upload: u, sum: md5.New(), r: io.NewSectionReader(part, 0, part.Size()), done: off}
		return last
	}
	resp, err := u.link.expect(ctx, c, http.StatusAccepted, http.StatusCreated, http.StatusOK, http.StatusNoContent, http.StatusTemporaryRedirect)
	if err != nil {
		return nil, nil, err
	}
	if next, err = u.link.uploadURL(c, resp); err != nil {
		return nil, nil, err
	}
	if resp.StatusCode == http.StatusTemporaryRedirect {
		put := c
		if put.url, err = u.link.leads(c, resp, resp.Header.Get("Location")); err != nil {
			return nil, nil, err
		}
		put.method, put.header = http.MethodPut, http.Header{"Content-Type": {"application/octet-stream"}}
		if _, err := u.link.expect(ctx, put, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent); err != nil {
			return nil, nil, err
		}
	}
	return next, last.md5(), nil
}

// sending tells how far a part is while it is read.
type sending struct {
	*upload
	sum  hash.Hash
	r    io.Reader
	done int64
}

func (s *sending) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.mu.Lock()
	s.sum.Write(b[:n])
	s.done += int64(n)
	done := s.done
	s.mu.Unlock()
	s.tell(done, false)
	return n, err
}

// md5 is the sum of what was read.
func (s *sending) md5() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum.Sum(nil)
}
