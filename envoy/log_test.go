package envoy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestEnvoysLogIsPassedOn(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"a warning", `{"level":"warning","logger":"config","message":"said \"no\""}` + "\n", `level=WARN msg="said \"no\"" logger=config` + "\n"},
		{"info and debug", `{"level":"info","logger":"main","message":"a"}` + "\n" + `{"level":"trace","logger":"main","message":"b"}` + "\n",
			"level=INFO msg=a logger=main\nlevel=DEBUG msg=b logger=main\n"},
		{"critical", `{"level":"critical","logger":"main","message":"bad"}` + "\n", "level=ERROR msg=bad logger=main\n"},
		{"no record", "Segmentation fault\n\n  \n", `level=ERROR msg="Segmentation fault" logger=""` + "\n"},
		{"the access log", `{"status":503,"log":"access","host":"a"}` + "\n", `level=INFO msg="request failed" host=a status=503` + "\n"},
		{"a line without an end waits", `{"level":"info"`, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, piece := range []int{1, 7, len(r.in)} {
				var out bytes.Buffer
				l := &lineLog{log: plainLog(&out)}
				for rest := []byte(r.in); len(rest) > 0; {
					n := min(piece, len(rest))
					if got, err := l.Write(rest[:n]); got != n || err != nil {
						t.Fatalf("Write = %d, %v", got, err)
					}
					rest = rest[n:]
				}
				if out.String() != r.want {
					t.Errorf("in pieces of %d:\n%s\nwant\n%s", piece, out.String(), r.want)
				}
			}
		})
	}
}

func TestWarningsOfTheEndAreNoNews(t *testing.T) {
	var out bytes.Buffer
	l := &lineLog{log: plainLog(&out)}
	l.end()
	for _, level := range []string{"warning", "error"} {
		if _, err := l.Write([]byte(`{"level":"` + level + `","logger":"main","message":"x"}` + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if want := "level=DEBUG msg=x logger=main\nlevel=ERROR msg=x logger=main\n"; out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestALongLineIsCut(t *testing.T) {
	var out bytes.Buffer
	l := &lineLog{log: plainLog(&out)}
	long := `{"level":"warning","logger":"config","message":"` + strings.Repeat("x", 1<<20)
	for _, part := range []string{long[:5000], long[5000:], "\"}\n", `{"level":"info","logger":"main","message":"next"}` + "\n"} {
		if _, err := l.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	first, second, _ := strings.Cut(out.String(), "\n")
	if len(first) > maxLogLine+100 || !strings.HasPrefix(first, "level=WARN msg=\"xxx") || !strings.HasSuffix(first, `x ..." logger=config`) {
		t.Errorf("the long line came out as %d bytes: %.60s ... %s", len(first), first, first[max(0, len(first)-40):])
	}
	if second != "level=INFO msg=next logger=main\n" {
		t.Errorf("the line after it: %q", second)
	}
}

func plainLog(out *bytes.Buffer) *slog.Logger {
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: noTime}))
}
