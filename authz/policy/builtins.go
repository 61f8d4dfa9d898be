package policy

import (
	"strings"
	_ "time/tzdata" // zones by name, also where the system has no database of them

	"github.com/open-policy-agent/opa/v1/ast"
)

// deterministic are the built-ins whose result depends on their arguments alone, whose time and memory are bounded by the size of
// those, and which do no I/O. A built-in that is in no list here (a later OPA's) cannot be used.
const deterministic = `
abs and array.concat array.flatten array.reverse array.slice assign base64.decode base64.encode base64.is_valid
base64url.decode base64url.encode base64url.encode_no_pad bits.and bits.negate bits.or bits.rsh bits.xor ceil concat
contains count crypto.hmac.equal crypto.hmac.md5 crypto.hmac.sha1 crypto.hmac.sha256 crypto.hmac.sha512 crypto.md5
crypto.parse_private_keys crypto.sha1 crypto.sha256 crypto.x509.parse_certificate_request crypto.x509.parse_certificates
crypto.x509.parse_keypair crypto.x509.parse_rsa_private_key div endswith eq equal floor format_int glob.match
glob.quote_meta graph.reachable gt gte hex.decode hex.encode indexof indexof_n internal.member_2 internal.member_3
internal.print internal.template_string intersection io.jwt.decode io.jwt.verify_eddsa io.jwt.verify_es256
io.jwt.verify_es384 io.jwt.verify_es512 io.jwt.verify_hs256 io.jwt.verify_hs384 io.jwt.verify_hs512 io.jwt.verify_ps256
io.jwt.verify_ps384 io.jwt.verify_ps512 io.jwt.verify_rs256 io.jwt.verify_rs384 io.jwt.verify_rs512 is_array is_boolean
is_null is_number is_object is_set is_string json.filter json.is_valid json.marshal json.marshal_with_options json.patch
json.remove json.unmarshal lower lt lte max min minus mul neq net.cidr_contains net.cidr_contains_matches
net.cidr_expand net.cidr_intersects net.cidr_is_valid net.cidr_merge numbers.range numbers.range_step object.filter
object.get object.keys object.remove object.subset object.union object.union_n or plus print product
regex.find_all_string_submatch_n regex.find_n regex.is_valid regex.match regex.replace regex.split
rego.metadata.chain rego.metadata.rule rem replace round semver.compare semver.is_valid sort split
sprintf startswith strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n strings.reverse
strings.split_n substring sum time.add_date time.clock time.date time.diff time.format time.parse_duration_ns
time.parse_ns time.parse_rfc3339_ns time.weekday to_number trim trim_left trim_prefix trim_right trim_space trim_suffix
type_name union units.parse units.parse_bytes upper uri.is_valid uri.parse urlquery.decode urlquery.decode_object
urlquery.encode urlquery.encode_object uuid.parse walk yaml.is_valid yaml.marshal yaml.unmarshal
`

// unsteady are the built-ins whose result depends on more than their arguments, with what they depend on. Decisions of a policy that
// calls one are not cached. OPA marks some of them as nondeterministic; the verifying ones read the clock without being marked.
var unsteady = map[string]string{
	"time.now_ns":          "reads the clock",
	"io.jwt.decode_verify": "reads the clock",
	"crypto.x509.parse_and_verify_certificates":              "reads the clock",
	"crypto.x509.parse_and_verify_certificates_with_options": "reads the clock",
	"io.jwt.encode_sign":                                     "draws random numbers",
	"io.jwt.encode_sign_raw":                                 "draws random numbers",
	"rand.intn":                                              "draws random numbers",
	"uuid.rfc4122":                                           "draws random numbers",
}

// forbidden are the built-ins that a policy cannot use: why, and what to do instead.
var forbidden = map[string]string{
	"http.send":                "it would call another server within each request; have the identity provider put what is needed into a claim, or write it into a rule",
	"net.lookup_ip_addr":       "it would ask a name server within each request; compare input.request.client_ip with net.cidr_contains instead",
	"opa.runtime":              "it would show the process's environment, which holds secrets; write what is needed into a rule",
	"rego.parse_module":        "policies are compiled when they are loaded; `doorward check` says whether one compiles",
	"json.match_schema":        "a schema can name others by URL or file, which it would fetch; compare the members that matter",
	"json.verify_schema":       "a schema can name others by URL or file, which it would fetch; compare the members that matter",
	"providers.aws.sign_req":   "it signs requests for http.send, which is not available either",
	"trace":                    "nothing collects its notes; use print",
	"graphql.parse":            noBound,
	"graphql.parse_and_verify": noBound,
	"graphql.parse_query":      noBound,
	"graphql.parse_schema":     noBound,
	"graphql.is_valid":         noBound,
	"graphql.schema_is_valid":  noBound,
	"strings.render_template":  "its time has no bound; use sprintf or a template string",
	"graph.reachable_paths":    "the number of paths has no bound; use graph.reachable",
	"regex.globs_match":        "its time has no bound; use glob.match",
	"regex.template_match":     "its time has no bound; use regex.match",
	"bits.lsh":                 "its result has no bound; multiply by a power of two",
}

const noBound = "its time has no bound"

// capabilities are OPA's, with the usable built-ins only and without any host that could be reached.
func capabilities() *ast.Capabilities {
	usable := map[string]bool{}
	for name := range strings.FieldsSeq(deterministic) {
		usable[name] = true
	}
	for name := range unsteady {
		usable[name] = true
	}
	c := ast.CapabilitiesForThisVersion()
	all := c.Builtins
	c.Builtins = make([]*ast.Builtin, 0, len(all))
	for _, b := range all {
		if usable[b.Name] {
			c.Builtins = append(c.Builtins, b)
		}
	}
	c.AllowNet = []string{}
	return c
}
