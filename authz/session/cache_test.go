package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fill holds n sessions with one cookie each, of the usual size or of size bytes, and returns the i-th by its number.
func fill(t testing.TB, c *cache, n, size int) {
	for i := range n {
		session, hash := usual(i)
		if size > 0 {
			raw := make([]byte, size/2)
			rand.Read(raw)
			session.User.Name = hex.EncodeToString(raw)
		}
		data, err := json.Marshal(session)
		if err != nil {
			t.Fatal(err)
		}
		c.keep(c.find(hash, start).generation, hash, link{Session: session.ID, Host: host}, session, data)
	}
}

// usualCookie is the cookie of the i-th session.
func usualCookie(i int) string {
	raw := sha256.Sum256([]byte(strconv.Itoa(i)))
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// usual is the i-th session, as a common provider makes it, and the hash of its cookie.
func usual(i int) (*Session, [32]byte) {
	hash, _ := hashCookie(usualCookie(i))
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(i)*0xbf58476d1ce4e5b9)
	n := strconv.Itoa(i)
	subject, sid := newID(), newID()
	return &Session{
		ID: hex.EncodeToString(id[:]), Version: uint64(i + 1), Provider: "default", Issuer: "https://keycloak.example.com/realms/main",
		Subject: subject, SID: sid,
		User: User{
			ID: subject, Email: "user" + n + "@example.com", EmailVerified: true, Name: "Given" + n + " Family" + n,
			Groups: []string{"engineering", "grafana-admins", "team-" + strconv.Itoa(i%20)},
			Claims: map[string]any{
				"acr": "1", "auth_time": json.Number("1700000000"), "azp": "doorward", "email": "user" + n + "@example.com",
				"email_verified": true, "family_name": "Family" + n, "given_name": "Given" + n, "name": "Given" + n + " Family" + n,
				"groups": []any{"engineering", "grafana-admins", "team-" + strconv.Itoa(i%20)}, "locale": "en", "preferred_username": "user" + n,
				"realm_access": map[string]any{"roles": []any{"offline_access", "uma_authorization", "default-roles-main"}},
				"scope":        "openid profile email",
			},
		},
		Created: start.Add(time.Duration(i) * time.Microsecond), Expires: start.Add(14 * time.Hour), AuthTime: start, AMR: []string{"pwd"}, ACR: "1",
	}, hash
}

func TestPacker(t *testing.T) {
	var p packer
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				want, _ := usual(w*50 + i)
				if i == 10 {
					want.User.Name = strings.Repeat(newID(), 8000)
				}
				data, err := json.Marshal(want)
				if err != nil {
					t.Error(err)
				}
				packed := p.pack(want.Version, data)
				got, size, err := p.unpack(packed)
				if err != nil || size != len(data) || !reflect.DeepEqual(got, want) {
					t.Errorf("%d bytes came back as %d, %v:\n%v\nwant\n%v", len(data), size, err, got, want)
				}
			}
		})
	}
	wg.Wait()
	if _, _, err := p.unpack([]byte("01234567nonsense")); err == nil {
		t.Error("nonsense was unpacked")
	}
}

var fewBounds = bounds{links: 300, packed: 200, packedSize: 1 << 20, hot: 50, hotSize: 1 << 20}

func TestCacheBounds(t *testing.T) {
	c := cache{max: fewBounds}
	c.start()
	fill(t, &c, 1000, 0)
	if len(c.links) != 300 || len(c.packed) != 200 || len(c.hot) != 50 || c.order.Len() != 50 {
		t.Errorf("%d cookies, %d sessions, %d hot, %d in order, want 300, 200, 50, 50", len(c.links), len(c.packed), len(c.hot), c.order.Len())
	}
	session, hash := usual(999)
	if got := c.find(hash, start); got.session == nil || got.session.ID != session.ID {
		t.Error("the newest session is not held")
	}
	packed, hot := 0, 0
	for _, data := range c.packed {
		packed += len(data)
	}
	for _, h := range c.hot {
		hot += h.size
	}
	if packed != c.packedSize || hot != c.hotSize {
		t.Errorf("counted %d and %d bytes, there are %d and %d", c.packedSize, c.hotSize, packed, hot)
	}
	c.dropAll()
	if c.packedSize != 0 || c.hotSize != 0 || len(c.links)+len(c.packed)+len(c.hot)+c.order.Len() != 0 {
		t.Error("the cache is not empty")
	}
}

func TestCacheBoundsBytes(t *testing.T) {
	c := cache{max: bounds{links: 300, packed: 300, packedSize: 1 << 20, hot: 300, hotSize: 1 << 19}}
	c.start()
	fill(t, &c, 100, 50_000)
	if c.packedSize > 1<<20 || c.packedSize < 1<<20-60_000 {
		t.Errorf("%d bytes packed, want at most and about %d", c.packedSize, 1<<20)
	}
	if c.hotSize > 1<<19 || c.hotSize < 1<<19-60_000 {
		t.Errorf("%d bytes hot, want at most and about %d", c.hotSize, 1<<19)
	}
	for id := range c.packed {
		c.forget(id)
	}
	if c.packedSize != 0 || c.hotSize != 0 || c.order.Len() != 0 {
		t.Errorf("%d and %d bytes are left of nothing", c.packedSize, c.hotSize)
	}
}

// TestCacheSpares holds that sessions in use stay hot while others pass through.
func TestCacheSpares(t *testing.T) {
	c := cache{max: fewBounds}
	c.start()
	fill(t, &c, 50, 0)
	for i := 50; i < 190; i++ {
		for used := range 10 {
			_, hash := usual(used)
			if c.find(hash, start).session == nil {
				t.Fatalf("session %d is not hot after %d others", used, i-50)
			}
		}
		session, hash := usual(i)
		c.keep(c.generation, hash, link{Session: session.ID, Host: host}, session, []byte("{}"))
	}
}

// TestCacheGenerations has what was read before something was dropped arrive after it: it is not held, whatever was dropped.
func TestCacheGenerations(t *testing.T) {
	session, hash := usual(0)
	other, otherHash := usual(1)
	data, err := json.Marshal(session)
	if err != nil {
		t.Fatal(err)
	}
	l := link{Session: session.ID, Host: host}
	id, _ := parseID(session.ID)
	for what, drop := range map[string]func(*cache){
		"the session":        func(c *cache) { c.dropSession(session.ID) },
		"the cookie":         func(c *cache) { c.dropCookie(hash) },
		"another session":    func(c *cache) { c.dropSession(other.ID) },
		"another cookie":     func(c *cache) { c.dropCookie(otherHash) },
		"everything":         func(c *cache) { c.dropAll() },
		"the watch":          func(c *cache) { c.stop() },
		"the watch for long": func(c *cache) { c.stop(); c.start() },
	} {
		c := cache{max: usualBounds()}
		c.start()
		generation := c.find(hash, start).generation
		drop(&c)
		c.keep(generation, hash, l, session, data)
		c.warm(generation, id, session, len(data))
		c.keepUnknown(generation, hash, start)
		if got := c.find(hash, start); got.linked || got.unknown || len(c.packed)+len(c.hot)+len(c.links) != 0 {
			t.Errorf("dropped %s: held what was read before: %+v", what, got)
		}
		if c.on {
			c.keep(c.find(hash, start).generation, hash, l, session, data)
			if got := c.find(hash, start); got.session != session {
				t.Errorf("dropped %s: what was read afterwards is not held: %+v", what, got)
			}
		}
	}
}

// TestStranger presents cookies that nobody issued.
func TestStranger(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1500 {
				value, _ := newCookie()
				if _, err := f.Find(f.ctx, value, host); !errors.Is(err, ErrNone) {
					t.Errorf("got %v, want ErrNone", err)
				}
			}
		})
	}
	wg.Wait()
	f.finds(cookie, host, alice.ID)
	if len(f.cache.links) > 1 || len(f.cache.unknown) != unknownSlots {
		t.Errorf("12000 strangers left %d cookies and %d slots", len(f.cache.links), len(f.cache.unknown))
	}
}

// BenchmarkFind looks up sessions that are all held ready, and sessions most of which are held packed.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n, " sessions"), func(b *testing.B) {
			s := &Sessions{now: func() time.Time { return start }, cache: cache{max: usualBounds()}}
			s.cache.start()
			fill(b, &s.cache, n, 0)
			cookies := make([]string, n)
			for i := range cookies {
				cookies[i] = usualCookie(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Find(b.Context(), cookies[i*7919%n], host); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestMemory measures what 100,000 sessions in memory cost. It is for people: DOORWARD_MEASURE=1.
func TestMemory(t *testing.T) {
	if os.Getenv("DOORWARD_MEASURE") == "" {
		t.Skip("set DOORWARD_MEASURE=1 to measure")
	}
	const n = 100_000
	before, heapBefore := resident(t)
	c := cache{max: usualBounds()}
	c.start()
	fill(t, &c, n, 0)
	after, heapAfter := resident(t)
	t.Logf("%d sessions: %d MiB resident, %d MiB of heap; %d bytes packed each", n, (after-before)>>20, (heapAfter-heapBefore)>>20, c.packedSize/n)
	runtime.KeepAlive(&c)
}

// resident returns the anonymous resident memory and the live heap, in bytes.
func resident(t *testing.T) (rss, heap int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10, int(m.HeapAlloc)
		}
	}
	t.Skip("no RssAnon in /proc/self/status")
	return 0, 0
}
