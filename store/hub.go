package store

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ollama/ollama/types/model"
)

const (
	maxTree      = 16 << 20 // bytes of a page of the list of a repository's files
	maxTreePages = 20
	maxParts     = 1000 // files of one model
)

// hubFile is a file of a repository.
type hubFile struct {
	Type string // "file" or "directory"
	Path string // within the repository, with slashes
	Size int64  // bytes
	OID  string // 40 hex: SHA-1 as git computes it
	LFS  *struct {
		OID string // 64 hex: SHA-256
	}
}

var (
	gitOIDs = regexp.MustCompile(`^[0-9a-f]{40}$`)
	lfsOIDs = regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{64})$`)
)

// parseTree reads a page of the list of a repository's files. Paths of what it gives stay within a directory, digests are digests.
func parseTree(raw []byte) (files []hubFile, err error) {
	var all []hubFile
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Type != "file" {
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) || path.Clean(f.Path) != f.Path || strings.ContainsAny(f.Path, "\\\x00") || len(f.Path) > 1024 {
			return nil, fmt.Errorf("%s leads out of the repository", quoted("file", f.Path))
		}
		if f.Size < 0 || f.Size > maxBlob {
			return nil, fmt.Errorf("%s has %d bytes", quoted("file", f.Path), f.Size)
		}
		oid := gitOIDs.MatchString(f.OID)
		if f.LFS != nil {
			m := lfsOIDs.FindStringSubmatch(f.LFS.OID)
			if oid = m != nil; oid {
				f.LFS.OID = m[1]
			}
		}
		if !oid {
			return nil, fmt.Errorf("%s has no digest", quoted("file", f.Path))
		}
		files = append(files, f)
	}
	return files, nil
}

// digest identifies a file's bytes.
func (f hubFile) digest() string {
	if f.LFS != nil {
		return f.LFS.OID
	}
	return f.OID
}

// repository is a repository of the hub.
type repository struct {
	link *link
	base *url.URL // of the hub
	name model.Name
}

func (r repository) String() string { return r.name.Namespace + "/" + r.name.Model }

// files lists what the repository holds.
func (r repository) files(ctx context.Context) (files []hubFile, err error) {
	at := r.base.JoinPath("api", "models", r.name.Namespace, r.name.Model, "tree", "main")
	at.RawQuery = "recursive=true"
	what := "files of " + r.String()
	for range maxTreePages {
		raw, header, err := r.link.read(ctx, call{what: what, method: http.MethodGet, url: at}, maxTree)
		if err != nil {
			return nil, unknown(err)
		}
		page, err := parseTree(raw)
		if err != nil {
			return nil, &RemoteError{Host: at.Host, What: what, Limit: err.Error(), Err: ErrFormat}
		}
		files = append(files, page...)
		next := nextPage(header.Get("Link"), at)
		if next == nil {
			return files, nil
		}
		if !r.link.isHome(next) {
			return nil, &RemoteError{Host: at.Host, What: what, Limit: "goes on at " + next.Host, Err: ErrRemote}
		}
		at = next
	}
	return nil, &RemoteError{Host: at.Host, What: what, Limit: fmt.Sprintf("more than %d pages", maxTreePages), Err: ErrRemote}
}

// nextPage reads a header like <https://host/path?cursor=x>; rel="next".
func nextPage(h string, from *url.URL) *url.URL {
	ref, rel, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(h), "<"), ">")
	if !ok || !strings.Contains(rel, `rel="next"`) {
		return nil
	}
	next, err := from.Parse(ref)
	if err != nil {
		return nil
	}
	return next
}

// want is a file of the repository that goes to a path.
func (r repository) want(f hubFile, to string) *wanted {
	at := r.base.JoinPath(r.name.Namespace, r.name.Model, "resolve", "main")
	for part := range strings.SplitSeq(f.Path, "/") {
		at = at.JoinPath(url.PathEscape(part))
	}
	w := &wanted{link: r.link, url: at, what: "file " + f.Path, size: f.Size, path: to}
	if f.LFS != nil {
		w.digest = "sha256:" + f.LFS.OID
		w.status = "pulling " + f.LFS.OID[:12]
	}
	return w
}

// small reads a file that git itself holds, and checks it as git does.
func (r repository) small(ctx context.Context, f hubFile) ([]byte, error) {
	w := r.want(f, "")
	raw, _, err := r.link.read(ctx, call{what: w.what, method: http.MethodGet, url: w.url}, min(f.Size, hfMaxFile))
	if err != nil {
		return nil, unknown(err)
	}
	sum := sha1.New() // git's, which says that these are the bytes that were listed and no more
	fmt.Fprintf(sum, "blob %d\x00", len(raw))
	sum.Write(raw)
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.OID {
		return nil, w.wrong(ErrDigest, "%s, should be %s", got, f.OID)
	}
	return raw, nil
}

// ggufSet is one model of a repository: a GGUF file or the files of a split one, in their order.
type ggufSet struct {
	stem  string // name without its number and .gguf
	dir   string
	quant string // "Q4_K_M"; "" where the name does not say
	files []hubFile
	split bool
}

// quantNames end the names of GGUF files: Model-Q4_K_M.gguf, model.q8_0.gguf, Model-UD-Q2_K_XL.gguf.
var quantNames = regexp.MustCompile(`(?i)(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4\w*|NVFP4|BF16|FP?16|FP?32))$`)

// quantOf is what a GGUF file's name says of its format, in capitals; "" where it says nothing.
func quantOf(file string) string {
	if m := quantNames.FindStringSubmatch(ModelName(path.Base(file))); m != nil {
		return strings.ToUpper(m[1])
	}
	return ""
}

// ggufs lists the models among files, by name. Projectors of images and importance matrices are none.
func ggufs(files []hubFile) (sets []ggufSet) {
	found := map[string]*ggufSet{}
	for _, f := range files {
		base := path.Base(f.Path)
		lower := strings.ToLower(base)
		if path.Ext(lower) != ".gguf" || strings.Contains(lower, "mmproj") || strings.Contains(lower, "imatrix") || f.LFS == nil {
			continue
		}
		s := ggufSet{dir: path.Dir(f.Path), stem: ModelName(base), quant: quantOf(base)}
		_, s.split = parsePartName(base)
		key := fmt.Sprint(s.dir, "/", s.stem, s.split)
		if found[key] == nil {
			found[key] = &s
		}
		found[key].files = append(found[key].files, f)
	}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		s := *found[key]
		slices.SortFunc(s.files, func(a, b hubFile) int { return strings.Compare(a.Path, b.Path) })
		sets = append(sets, s)
	}
	return sets
}

// whole says why a set cannot be pulled; nil: it can.
func (s ggufSet) whole() error {
	if !s.split {
		return nil
	}
	for i, f := range s.files {
		p, _ := parsePartName(path.Base(f.Path))
		if p.count != int64(len(s.files)) || p.no != int64(i+1) || p.count > maxParts {
			return fmt.Errorf("%s is one of %d, and %d of them are there", quoted("file", f.Path), p.count, len(s.files))
		}
	}
	return nil
}

// called says whether a user means the set by a tag: its format, with or without UD-, its folder, its name or its file's.
func (s ggufSet) called(tag string) bool {
	return slices.ContainsFunc([]string{s.quant, strings.TrimPrefix(s.quant, "UD-"), path.Base(s.dir), s.stem, s.stem + ".gguf"},
		func(name string) bool { return strings.EqualFold(name, tag) })
}

// usual are the formats that are taken when the user says none, the best balance of size and quality first.
var usual = []string{"Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "MXFP4", "MXFP4_MOE", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "Q3_K_M", "BF16", "F16"}

// choose gives the model that a tag means, "" = the usual one.
func choose(sets []ggufSet, tag string) (ggufSet, error) {
	if tag != "" && !strings.EqualFold(tag, model.DefaultName().Tag) {
		if i := slices.IndexFunc(sets, func(s ggufSet) bool { return s.called(tag) }); i >= 0 {
			return sets[i], nil
		}
		var there []string
		for _, s := range sets[:min(len(sets), 40)] {
			there = append(there, fmt.Sprintf("%.60s", cmp.Or(s.quant, s.stem)))
		}
		return ggufSet{}, fmt.Errorf("no GGUF file of the format %.60q, there are: %q", tag, there)
	}
	for _, quant := range usual {
		if i := slices.IndexFunc(sets, func(s ggufSet) bool { return s.quant == quant }); i >= 0 {
			return sets[i], nil
		}
	}
	return sets[0], nil
}

// fromHub adds a model of a repository: a GGUF file as a blob with a manifest, a split one or safetensors as a folder.
func (a *addition) fromHub(ctx context.Context, l *link, o origin, as string) error {
	r := repository{l, o.base, o.name}
	files, err := r.files(ctx)
	if err != nil {
		return err
	}
	bad := &RemoteError{Host: o.base.Host, What: "repository " + r.String(), Err: ErrUnsupported}
	sets := ggufs(files)
	if len(sets) == 0 {
		if o.tag != "" && !strings.EqualFold(o.tag, model.DefaultName().Tag) {
			bad.Limit, bad.Err = fmt.Sprintf("no GGUF file of the format %.60q, and no other", o.tag), ErrNoModel
			return bad
		}
		if files, err = r.safetensors(ctx, files); err != nil {
			return err
		}
		return a.folder(ctx, r, cmp.Or(as, o.name.Model), files)
	}
	set, err := choose(sets, o.tag)
	if err != nil {
		bad.Limit, bad.Err = err.Error(), ErrNoModel
		return bad
	}
	if err := set.whole(); err != nil {
		bad.Limit, bad.Err = err.Error(), ErrFormat
		return bad
	}
	if set.split {
		name := cmp.Or(as, set.stem)
		if !plainName(name) && as == "" {
			name = o.name.Model + "-" + cmp.Or(set.quant, "split")
		}
		return a.folder(ctx, r, name, set.files)
	}
	to := o.name
	if as != "" {
		to = model.ParseName(as)
	}
	if err := a.replace(to); err != nil {
		return err
	}
	w := r.want(set.files[0], a.store.blob("sha256:"+set.files[0].LFS.OID))
	if err := a.fetch(ctx, l, []*wanted{w}); err != nil {
		return err
	}
	return a.model(l, to, w)
}

// hubSmall are the files beside safetensors that are pulled: those that Winnow reads, and those that others need to read the folder.
var hubSmall = append([]string{"special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "LICENSE"}, hfFiles...)

// safetensors lists the files that make a Hugging Face directory of the repository: its small files, and the weights that its index names.
func (r repository) safetensors(ctx context.Context, files []hubFile) (out []hubFile, err error) {
	bad := &RemoteError{Host: r.base.Host, What: "repository " + r.String(), Err: ErrUnsupported}
	there := map[string]hubFile{}
	for _, f := range files {
		there[f.Path] = f
		if slices.Contains(hubSmall, f.Path) {
			out = append(out, f)
		}
	}
	weights := []string{hfWeights}
	if index, ok := there[hfIndex]; ok {
		raw, err := r.index(ctx, index)
		if err != nil {
			return nil, err
		}
		where, err := parseIndex(raw)
		if err != nil {
			bad.What, bad.Limit, bad.Err = "file "+hfIndex, err.Error(), ErrFormat
			return nil, bad
		}
		weights = slices.Compact(slices.Sorted(maps.Values(where)))
		out = append(out, index)
	}
	if _, ok := there["config.json"]; !ok || len(weights) > maxParts {
		bad.Limit = fmt.Sprintf("holds neither a GGUF file nor config.json and safetensors in at most %d files", maxParts)
		return nil, bad
	}
	for _, name := range weights {
		f, ok := there[name]
		if !ok {
			bad.Limit, bad.Err = quoted("file", name)+" is not there", ErrFormat
			return nil, bad
		}
		out = append(out, f)
	}
	return out, nil
}

// index reads the list of weights, which lies in git or beside it.
func (r repository) index(ctx context.Context, f hubFile) ([]byte, error) {
	if f.LFS == nil {
		return r.small(ctx, f)
	}
	w := r.want(f, "")
	raw, _, err := r.link.read(ctx, call{what: w.what, method: http.MethodGet, url: w.url}, min(f.Size, hfMaxFile))
	return raw, err
}
