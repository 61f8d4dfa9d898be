package xds

import (
	corexds "github.com/cncf/xds/go/xds/core/v3"
	matcherxds "github.com/cncf/xds/go/xds/type/matcher/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// hostName is what a server name may look like for the control plane to hear of it. It is as wide as hosts can be, and no
// wider: a server name is any bytes that a stranger likes, and Envoy would put them into a request for a certificate. Bytes
// that are no UTF-8 make that request one that cannot be decoded, so that a single handshake would end the ADS stream,
// and end it again each time that Envoy resumes its subscriptions.
const hostName = `[a-z0-9_-][a-z0-9._-]*`

// byServerName leads a connection to the filter chain of the first special that its server name fits, and one whose server name looks like another
// host to that of all others. Any other, and one without a server name, has no chain: Envoy closes it.
func byServerName(all []special) *matcherxds.Matcher {
	list := new(matcherxds.Matcher_MatcherList)
	for _, s := range append(all, special{hostName, httpsListener}) {
		list.Matchers = append(list.Matchers, &matcherxds.Matcher_MatcherList_FieldMatcher{Predicate: serverName(s.expression), OnMatch: toChain(s.chain)})
	}
	return &matcherxds.Matcher{MatcherType: &matcherxds.Matcher_MatcherList_{MatcherList: list}}
}

// byProtocol leads a connection that offers the protocol of tls-alpn-01 challenges, and no other (RFC 8737, section 3), to a filter chain, and any
// other connection by its server name. It comes first so that it holds for every host, whatever chain the host has.
func byProtocol(challenges string, rest *matcherxds.Matcher) *matcherxds.Matcher {
	isChallenge := predicate("envoy.matching.inputs.application_protocol", &networkv3.ApplicationProtocolInput{}, &matcherxds.StringMatcher{
		MatchPattern: &matcherxds.StringMatcher_Exact{Exact: "'acme-tls/1'"}, // the whole list, as Envoy writes it
	})
	return &matcherxds.Matcher{
		MatcherType: &matcherxds.Matcher_MatcherList_{MatcherList: &matcherxds.Matcher_MatcherList{
			Matchers: []*matcherxds.Matcher_MatcherList_FieldMatcher{{Predicate: isChallenge, OnMatch: toChain(challenges)}},
		}},
		OnNoMatch: &matcherxds.Matcher_OnMatch{OnMatch: &matcherxds.Matcher_OnMatch_Matcher{Matcher: rest}},
	}
}

// serverName wants the server name to match an expression as a whole.
func serverName(expression string) *matcherxds.Matcher_MatcherList_Predicate {
	return predicate("envoy.matching.inputs.server_name", &networkv3.ServerNameInput{}, &matcherxds.StringMatcher{
		MatchPattern: &matcherxds.StringMatcher_SafeRegex{SafeRegex: &matcherxds.RegexMatcher{
			EngineType: &matcherxds.RegexMatcher_GoogleRe2{GoogleRe2: &matcherxds.RegexMatcher_GoogleRE2{}},
			Regex:      expression,
		}},
	})
}

// predicate holds an input against a matcher.
func predicate(name string, input validated, m *matcherxds.StringMatcher) *matcherxds.Matcher_MatcherList_Predicate {
	return &matcherxds.Matcher_MatcherList_Predicate{
		MatchType: &matcherxds.Matcher_MatcherList_Predicate_SinglePredicate_{
			SinglePredicate: &matcherxds.Matcher_MatcherList_Predicate_SinglePredicate{
				Input:   &corexds.TypedExtensionConfig{Name: name, TypedConfig: mustPack(input)},
				Matcher: &matcherxds.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: m},
			},
		},
	}
}

// toChain is the outcome of a match: the name of a filter chain.
func toChain(name string) *matcherxds.Matcher_OnMatch {
	body := new(anypb.Any)
	if err := anypb.MarshalFrom(body, wrapperspb.String(name), proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("xds: filter chain name: " + err.Error()) // a string of ours
	}
	return &matcherxds.Matcher_OnMatch{OnMatch: &matcherxds.Matcher_OnMatch_Action{
		Action: &corexds.TypedExtensionConfig{Name: "filter_chain", TypedConfig: body},
	}}
}
