package session

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"sync"

	"doorward/authz/store"
)

// packer makes sessions small: the JSON deflated (RFC 1951), with the first session that comes as the dictionary. Sessions of one
// deployment have the same issuer, claims and groups, so little more is left of each than what is its own: some 200 bytes of 1,000. The
// zero packer is ready. Safe for concurrent use.
type packer struct {
	mu   sync.Mutex
	dict []byte
	w    *flate.Writer
	out  bytes.Buffer

	readers sync.Pool // of flate readers
}

// pack returns the version (8 bytes, big-endian) and the deflated JSON.
func (p *packer) pack(version uint64, data []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		p.dict = bytes.Clone(data[max(0, len(data)-maxDict):])
		w, err := flate.NewWriterDict(&p.out, flate.BestSpeed, p.dict)
		if err != nil {
			panic("session: " + err.Error()) // only a level out of range is an error
		}
		p.w = w
	}
	p.out.Reset()
	p.out.Write(binary.BigEndian.AppendUint64(nil, version))
	p.w.Reset(&p.out)
	// Writing to a buffer does not fail.
	_, _ = p.w.Write(data)
	_ = p.w.Close()
	return bytes.Clone(p.out.Bytes())
}

// maxDict is as far back as deflate can refer.
const maxDict = 32 << 10

// unpack returns the session and the size of its JSON.
func (p *packer) unpack(packed []byte) (*Session, int, error) {
	p.mu.Lock()
	dict := p.dict
	p.mu.Unlock()
	in := bytes.NewReader(packed[8:])
	r, ok := p.readers.Get().(io.ReadCloser)
	if ok {
		if err := r.(flate.Resetter).Reset(in, dict); err != nil {
			return nil, 0, err
		}
	} else {
		r = flate.NewReaderDict(in, dict)
	}
	defer p.readers.Put(r)
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, err
	}
	session, err := decodeSession(data, store.Version(binary.BigEndian.Uint64(packed)))
	return session, len(data), err
}
