package serve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// shelf is a catalogue whose models can be changed. Each is the model of stories, which takes a second to load and pretends to take as much memory as is said.
type shelf struct {
	t    *testing.T
	loop *engine.Loop

	mu      sync.Mutex
	sources map[string]Source
	loads   []string // names, in order
}

func newShelf(t *testing.T) *shelf {
	return &shelf{t: t, loop: engine.NewLoop(), sources: map[string]Source{}}
}

// put gives a name to weights of a size. What they are expected to take may differ from what they do.
func (s *shelf) put(name, weights string, expected, memory int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources[name] = Source{
		Name: name, Weights: weights, Memory: func() (int64, error) { return expected, nil },
		Open: func() (*Model, error) {
			s.mu.Lock()
			s.loads = append(s.loads, name)
			s.mu.Unlock()
			time.Sleep(time.Second)
			if memory < 0 {
				return nil, errBroken
			}
			m, err := Open(name, checkpoint(s.t, stories), Options{
				Device: tensor.Reference(), Loop: s.loop, DType: model.Float32, Context: 64, Sequences: 1, Rows: 8,
			})
			if err == nil {
				m.memory = memory
			}
			return m, err
		},
	}
}

func (s *shelf) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, name)
}

func (s *shelf) Find(name string) (Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.sources[name]; ok {
		return one, nil
	}
	return Source{}, fmt.Errorf("%w: %s", ErrNoModel, name)
}

func (s *shelf) List() ([]Source, error) { return nil, nil }

func (s *shelf) loaded() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.loads, " ")
}

// roomTest is a pool of models a, b and c of 40 bytes, huge of 500 and broken, in a bubble of its own time.
type roomTest struct {
	*testing.T
	*Pool
	shelf *shelf
}

// inBubble runs a test with a pool, which it closes.
func inBubble(t *testing.T, opt PoolOptions, test func(r *roomTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		for _, name := range []string{"a", "b", "c"} {
			s.put(name, "", 40, 40)
		}
		s.put("huge", "", 500, 500)
		s.put("broken", "", 40, -1)
		opt.Models, opt.Check = s, true
		r := &roomTest{T: t, Pool: NewPool(opt), shelf: s}
		test(r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if n := r.Counters(); n.Loads+n.Failures < int64(len(s.loads)) || n.Waiting != 0 {
			t.Errorf("%+v after loads of %v", n, s.loads)
		}
		s.loop.Close()
	})
}

func (r *roomTest) acquire(name string) *Lease {
	r.Helper()
	l, err := r.Acquire(r.Context(), name)
	if err != nil {
		r.Fatalf("%s: %v", name, err)
	}
	if l.Name() != name {
		r.Errorf("%s came as %s", name, l.Name())
	}
	return l
}

// touch uses a model for a moment.
func (r *roomTest) touch(names ...string) {
	r.Helper()
	for _, name := range names {
		r.acquire(name).Release()
	}
}

// begin asks for a model in the background.
func (r *roomTest) begin(name string) <-chan *Lease {
	out := make(chan *Lease, 1)
	go func() {
		l, err := r.Acquire(r.Context(), name)
		if err != nil {
			r.Errorf("%s: %v", name, err)
		}
		out <- l
	}()
	synctest.Wait()
	return out
}

// here checks which models are loaded, once nothing moves.
func (r *roomTest) here(want string) {
	r.Helper()
	synctest.Wait()
	var got []string
	var memory int64
	for _, l := range r.Loaded() {
		got, memory = append(got, l.Name), memory+l.Memory
	}
	if s := strings.Join(got, " "); s != want {
		r.Errorf("loaded %q, want %q", s, want)
	}
	if c := r.Counters(); c.Loaded != len(got) || c.Memory < memory {
		r.Errorf("%+v beside %d models of %d bytes", c, len(got), memory)
	}
}

func TestPoolKeepAlive(t *testing.T) {
	inBubble(t, PoolOptions{KeepAlive: time.Minute, Pinned: []string{"c"}}, func(r *roomTest) {
		l := r.acquire("a")
		if l.Loading != time.Second {
			r.Errorf("waited %v for a load of a second", l.Loading)
		}
		time.Sleep(time.Hour)
		r.here("a") // while it is in use
		l.Release()
		if at := r.Loaded()[0].Expires; !at.Equal(time.Now().Add(time.Minute)) {
			r.Errorf("expires %v, now is %v", at, time.Now())
		}
		time.Sleep(59 * time.Second)
		r.touch("a") // anew
		time.Sleep(59 * time.Second)
		r.here("a")
		time.Sleep(time.Second)
		r.here("")

		l = r.acquire("a")
		l.Keep(2 * time.Minute)
		l.Release()
		r.touch("a") // which says nothing else
		time.Sleep(119 * time.Second)
		r.here("a")
		time.Sleep(time.Second)
		r.here("")

		l = r.acquire("a")
		l.Keep(-1)
		l.Release()
		r.touch("b", "c")
		if at := r.Loaded()[0].Expires; !at.IsZero() {
			r.Errorf("expires %v, was to stay for ever", at)
		}
		time.Sleep(time.Hour)
		r.here("a c")
		one, two := r.acquire("a"), r.acquire("a")
		one.Keep(0)
		one.Release()
		r.here("a c")
		two.Release()
		r.here("c")

		r.touch("a")
		if err := r.Unload("a"); err != nil {
			r.Error(err)
		}
		r.here("c")
		l = r.acquire("b")
		if err := r.Unload("b"); err != nil {
			r.Error(err)
		}
		r.here("b c")
		l.Release()
		r.here("c")
		l = r.acquire("c")
		l.Keep(0)
		l.Release()
		if err := r.Unload("c"); !errors.Is(err, ErrPinned) {
			r.Errorf("unload a pinned model: %v", err)
		}
		r.here("c")
		if err := r.Unload("nobody"); !errors.Is(err, ErrNoModel) {
			r.Errorf("unload what is not there: %v", err)
		}
		if err := r.Unload("b"); err != nil {
			r.Errorf("unload what is not loaded: %v", err)
		}
		if got := r.shelf.loaded(); got != "a a a b c a b" {
			r.Errorf("loads %s", got)
		}
		if n := r.Counters(); n.Loads != 7 || n.Unloads != 6 || n.Loading != 7*time.Second || n.Memory != 40 {
			r.Errorf("%+v", n)
		}
	})
}

// Under a budget for two the model that was not used for the longest goes, and never one in use.
func TestPoolMakesRoom(t *testing.T) {
	for name, opt := range map[string]PoolOptions{"memory": {Memory: 100}, "models": {MaxLoaded: 2}} {
		t.Run(name, func(t *testing.T) {
			opt.LoadWait = time.Minute
			inBubble(t, opt, func(r *roomTest) {
				r.touch("a", "b")
				time.Sleep(time.Second)
				r.touch("a", "c")
				r.here("a c")
				held := r.acquire("a") // older than c, and in use
				r.touch("b")
				r.here("a b")
				also := r.acquire("b")
				started := time.Now()
				if _, err := r.Acquire(r.Context(), "c"); !errors.Is(err, ErrBusy) || time.Since(started) != time.Minute {
					r.Errorf("no room: %v after %v", err, time.Since(started))
				}
				waiting := r.begin("c")
				held.Release()
				c := <-waiting
				r.here("b c")
				c.Release()
				also.Release()
				if _, err := r.Acquire(r.Context(), "broken"); !errors.Is(err, ErrLoad) {
					r.Errorf("broken: %v", err)
				}
				if n := r.Counters(); n.Failures != 1 || n.Memory > 80 {
					r.Errorf("%+v", n)
				}
			})
		})
	}
}

func TestPoolRefusesWhatIsTooLarge(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 100, Pinned: []string{"a", "b"}}, func(r *roomTest) {
		refused := func(name, numbers string) {
			r.Helper()
			if _, err := r.Acquire(r.Context(), name); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), numbers) {
				r.Errorf("%s: %v", name, err)
			}
		}
		refused("huge", "takes 500 bytes, 100 are allowed")
		r.shelf.put("lies", "", 50, 101)
		refused("lies", "takes 101 bytes, 100 are allowed")
		if r.Ready() {
			r.Error("ready without the pinned models")
		}
		r.touch("a", "b")
		refused("c", "takes 40 bytes, 20 are allowed")
		r.here("a b")
		if !r.Ready() {
			r.Error("not ready")
		}
	})
	inBubble(t, PoolOptions{MaxLoaded: 1, Pinned: []string{"a"}}, func(r *roomTest) {
		r.touch("a")
		if _, err := r.Acquire(r.Context(), "b"); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "may be loaded: 1") {
			r.Errorf("beside a pinned one: %v", err)
		}
	})
}

// Pinned models stay, however long ago they were used.
func TestPoolKeepsWhatIsPinned(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 100, KeepAlive: time.Minute, Pinned: []string{"a"}}, func(r *roomTest) {
		r.touch("a")
		time.Sleep(time.Hour)
		r.touch("b", "c", "b")
		r.here("a b")
		time.Sleep(time.Hour)
		r.here("a")
	})
}

// What takes more than was expected pushes others out afterwards.
func TestPoolFindsRoomAfterwards(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 100}, func(r *roomTest) {
		r.shelf.put("more", "", 50, 90)
		held := r.acquire("a")
		l := r.acquire("more")
		r.here("a more")
		held.Release()
		r.here("more")
		l.Release()
		r.touch("a") // what more takes is known by now
		r.here("a")
	})
}

// A model that needs much room gets it, though requests for small ones go on without a pause.
func TestPoolIsFair(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 100, LoadWait: time.Minute}, func(r *roomTest) {
		r.shelf.put("big", "", 90, 90)
		a := r.acquire("a")
		big := r.begin("big")
		b := r.begin("b") // would fit, but is behind
		time.Sleep(29 * time.Second)
		next := r.acquire("a") // the loaded one goes on meanwhile
		a.Release()
		time.Sleep(time.Second)
		late := r.begin("a") // half of the wait is over
		select {
		case <-late:
			r.Fatal("a request overtook one that had waited for long")
		default:
		}
		next.Release()
		l := <-big
		r.here("big")
		l.Release()
		(<-b).Release()
		(<-late).Release()
		r.here("a b")
		if got := r.shelf.loaded(); got != "a big b a" && got != "a big a b" { // two at once
			r.Errorf("loads %s", got)
		}
	})
}

// Who waits for room and gives up leaves everything as it was.
func TestPoolForgetsWhoGivesUp(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 50, LoadWait: time.Minute}, func(r *roomTest) {
		a := r.acquire("a")
		ctx, cancel := context.WithCancelCause(r.Context())
		refused := make(chan error)
		go func() {
			_, err := r.Acquire(ctx, "b")
			refused <- err
		}()
		time.Sleep(31 * time.Second)
		late := r.begin("a") // behind b
		cancel(errBroken)
		if err := <-refused; !errors.Is(err, errBroken) {
			r.Errorf("gave up: %v", err)
		}
		(<-late).Release() // without another load
		a.Release()
		if got := r.shelf.loaded(); got != "a" {
			r.Errorf("loads %s", got)
		}
	})
}

// Names of the same weights share them. A name that means other weights now leaves the old ones to be unloaded.
func TestPoolNames(t *testing.T) {
	inBubble(t, PoolOptions{KeepAlive: time.Minute, Pinned: []string{"x"}}, func(r *roomTest) {
		r.shelf.put("x", "w1", 40, 40)
		r.shelf.put("y", "w1", 40, 40)
		x, y := r.acquire("x"), r.acquire("y")
		y.Release()
		r.here("y")
		r.shelf.put("y", "w2", 40, 40)
		r.touch("y")
		r.here("x y")
		r.shelf.put("x", "w2", 40, 40) // pulled again while it is in use
		again := r.acquire("x")
		r.here("x x") // the old one, in use, and the new one
		x.Release()
		r.here("x")
		again.Release()
		time.Sleep(time.Hour)
		r.here("x") // pinned under its new weights
		r.touch("a")
		r.shelf.remove("a")
		if _, err := r.Acquire(r.Context(), "a"); !errors.Is(err, ErrNoModel) {
			r.Errorf("removed: %v", err)
		}
		r.here("a x")
		if err := r.Unload("A:latest"); err != nil {
			r.Error(err)
		}
		r.here("x")
		r.shelf.put("one", "w3", 40, 40)
		r.shelf.put("two", "w3", 40, 40)
		r.touch("one", "two")
		r.shelf.remove("two")
		if err := r.Unload("two"); err != nil { // which says nothing of the other name
			r.Error(err)
		}
		r.here("x one")
		r.shelf.remove("one")
		one := r.Unload("one:other")
		if r.here("x one"); !errors.Is(one, ErrNoModel) {
			r.Errorf("unload another tag: %v", one)
		}
		if err := r.Unload("one"); err != nil {
			r.Error(err)
		}
		r.here("x")
		if got := r.shelf.loaded(); got != "x y a one" {
			r.Errorf("loads %s", got)
		}
	})
}

// Close does not wait for who waits, but for loads, and closes what they give.
func TestPoolCloses(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 50, KeepAlive: time.Minute}, func(r *roomTest) {
		refused := make(chan error, 2)
		for _, name := range []string{"a", "b"} { // loading, and waiting for room
			go func() {
				_, err := r.Acquire(r.Context(), name)
				refused <- err
			}()
			synctest.Wait()
		}
		if err := r.Close(); err != nil {
			r.Error(err)
		}
		for range 2 {
			if err := <-refused; !errors.Is(err, ErrClosed) {
				r.Errorf("got %v", err)
			}
		}
		if got := r.shelf.loaded(); got != "a" {
			r.Errorf("loads %s", got)
		}
	})
}

// The books hold whatever requests, unloads and changes of the catalogue come in whatever order, and at the end nothing is left.
func TestPoolBooks(t *testing.T) {
	for seed := range uint64(20) {
		inBubble(t, PoolOptions{Memory: 100, MaxLoaded: 3, KeepAlive: 5 * time.Second, LoadWait: 20 * time.Second, Pinned: []string{"a"}}, func(r *roomTest) {
			var clients sync.WaitGroup
			for client := range uint64(12) {
				random := rand.New(rand.NewPCG(seed, client))
				clients.Go(func() {
					for range 15 {
						r.anything(random)
						time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
					}
				})
			}
			clients.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			if c := r.Counters(); c.Waiting != 0 || c.Loads-c.Unloads != int64(c.Loaded) || c.Loads < 5 {
				r.Errorf("seed %d: at the end %+v", seed, c)
			}
			for _, l := range r.Loaded() {
				if !l.Expires.IsZero() {
					r.Errorf("seed %d: %s is still loaded, until %v", seed, l.Name, l.Expires)
				}
			}
		})
	}
}

// anything does one of the things that happen to a pool.
func (r *roomTest) anything(random *rand.Rand) {
	names := []string{"a", "b", "c", "huge", "broken", "much", "little"}
	name := names[random.IntN(len(names))]
	switch random.IntN(10) {
	case 0:
		if err := r.Unload(name); err != nil && !errors.Is(err, ErrPinned) && !errors.Is(err, ErrNoModel) {
			r.Errorf("unload %s: %v", name, err)
		}
	case 1:
		r.shelf.put("much", fmt.Sprint("much ", random.IntN(3)), 60, int64(50+random.IntN(30)))
		r.shelf.put("little", fmt.Sprint("much ", random.IntN(3)), 5, 10)
	default:
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(random.IntN(30000))*time.Millisecond)
		defer cancel()
		l, err := r.Acquire(ctx, name)
		if err != nil {
			known := []error{ErrBusy, ErrTooLarge, ErrLoad, ErrNoModel, context.DeadlineExceeded}
			if !slices.ContainsFunc(known, func(e error) bool { return errors.Is(err, e) }) {
				r.Errorf("%s: %v", name, err)
			}
			return
		}
		time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
		if l.engine.Context() == 0 || l.Name() != name {
			r.Errorf("%s is %s while it is in use", name, l.Name())
		}
		if random.IntN(4) == 0 {
			l.Keep(time.Duration(random.IntN(3)-1) * 10 * time.Second)
		}
		l.Release()
	}
}

// share has a name's model hold so many bytes of a mapping of 30 with others.
func (s *shelf) share(name string, expected, part int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sources[name]
	open := one.Open
	one.Sharing = Sharing{Mapping: "mapping", Whole: 30, Part: expected}
	one.Open = func() (*Model, error) {
		m, err := open()
		if err == nil {
			m.shareable = part
		}
		return m, err
	}
	s.sources[name] = one
}

// Models that hold weights together take them once, and no more room is lent than there is when that was expected and is not so.
func TestSharedWeightsCountOnce(t *testing.T) {
	inBubble(t, PoolOptions{Memory: 75}, func(r *roomTest) {
		r.shelf.share("a", 30, 30)
		r.shelf.share("b", 25, 25)
		r.acquire("a").Release()
		r.acquire("b").Release()
		if n := r.Counters(); n.Loaded != 2 || n.Memory != 80-25 {
			t.Errorf("two that share: %+v", n)
		}
		r.acquire("c").Release() // shares with nobody, so there is room for one more
		synctest.Wait()          // until what had to go is closed
		if n := r.Counters(); n.Memory > 75 {
			t.Errorf("beside one that does not: %+v", n)
		}
	})
	inBubble(t, PoolOptions{Memory: 60}, func(r *roomTest) {
		r.shelf.share("a", 30, 30)
		r.shelf.share("b", 30, 0) // expected, and not so
		r.acquire("a").Release()
		r.acquire("b").Release()
		synctest.Wait() // until what had to go is closed
		if n := r.Counters(); n.Memory > 60 {
			t.Errorf("what was to be shared is not: %+v", n)
		}
	})
}
