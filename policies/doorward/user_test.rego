package doorward.user_test

import data.doorward.user

person(email, verified) := {"user": {"email": email, "email_verified": verified, "groups": ["a", "b"], "claims": {"dept": "x", "teams": ["t"]}}}

test_email_is_lowered if user.email == "alice@example.com" with input as person("Alice@Example.COM", true)

test_email_must_be_verified if not user.email with input as person("alice@example.com", false)

test_email_without_a_claim_is_not_verified if not user.email with input as {"user": {"email": "alice@example.com"}}

test_domain if user.email_domain == "example.com" with input as person("alice@example.com", true)

test_unplain_addresses_have_no_domain if {
	every address in [
		"a@evil.test@example.com",
		"\"a@evil.test\"@example.com",
		"a@evil.test,b@example.com",
		"a@evil.test\n@example.com",
		"a@example.com\n",
		"a b@example.com",
		"<a@example.com>",
		"a@example.com.",
		"a@example..com",
		"a@example.com@",
		"a@[192.0.2.1]",
		"a(@evil.test)@example.com",
		"a@evil.test%00@example.com",
		"a@example.com\u200b",
		"a@example\u3002com",
		"\u0430@example.com",
		"a\\@example.com",
		"a@.example.com",
		"a@-example.com",
		"a@exam\u212Aple.com",
		"a@ex\u0430mple.com",
		"@example.com",
		"a@",
		"example.com",
		"",
	] {
		not user.email_domain with input as person(address, true)
	}
}

test_email_in if user.email_in(["other.test", "EXAMPLE.com"]) with input as person("a@example.COM", true)

test_email_in_a_set if user.email_in({"example.com"}) with input as person("a@example.com", true)

test_email_in_no_subdomain if not user.email_in(["example.com"]) with input as person("a@sub.example.com", true)

test_email_domains_are_names if {
	every domain in ["@example.com", ".example.com", "*.example.com", "*", "", "com"] {
		not user.email_in([domain]) with input as person("a@example.com", true)
	}
}

test_email_in_no_suffix if not user.email_in(["example.com"]) with input as person("a@evilexample.com", true)

test_email_in_nothing if not user.email_in([]) with input as person("a@example.com", true)

test_in_group if {
	user.in_group("a") with input as person("", false)
	not user.in_group("A") with input as person("", false)
	not user.in_group("c") with input as person("", false)
	not user.in_group("") with input as person("", false)
	not user.in_group("a,b") with input as person("", false)
}

test_group_names_are_compared_whole if {
	user.in_group("Site Reliability") with input as {"user": {"groups": ["Site Reliability", "/org/team"]}}
	user.in_group("/org/team") with input as {"user": {"groups": ["Site Reliability", "/org/team"]}}
	every name in ["Site", "Site  Reliability", "Site Reliability ", "site reliability", "/org", "team"] {
		not user.in_group(name) with input as {"user": {"groups": ["Site Reliability", "/org/team"]}}
	}
}

test_in_any_group if {
	user.in_any_group(["c", "b"]) with input as person("", false)
	user.in_any_group({"a"}) with input as person("", false)
	not user.in_any_group(["c"]) with input as person("", false)
	not user.in_any_group([]) with input as person("", false)
}

test_in_all_groups if {
	user.in_all_groups(["a", "b"]) with input as person("", false)
	not user.in_all_groups(["a", "c"]) with input as person("", false)
	not user.in_all_groups([]) with input as person("", false)
}

test_claims if {
	user.claim_is("dept", "x") with input as person("", false)
	not user.claim_is("dept", "y") with input as person("", false)
	not user.claim_is("none", "x") with input as person("", false)
	user.claim_has("teams", "t") with input as person("", false)
	not user.claim_has("teams", "u") with input as person("", false)
}

claims(c) := {"user": {"claims": c}}

test_claims_of_another_type if {
	every claim in ["administrator", "admin", {"admin": "x"}, {"team": "admin"}, 3, null, true, [["admin"]], [], [null]] {
		not user.claim_has("roles", "admin") with input as claims({"roles": claim})
	}
	not user.claim_is("level", "3") with input as claims({"level": 3})
	not user.claim_is("level", 3) with input as claims({"level": "3"})
	not user.claim_is("roles", "admin") with input as claims({"roles": ["admin"]})
	user.claim_is("contractor", false) with input as claims({"contractor": false})
	not user.claim_is("contractor", false) with input as claims({})
	not user.claim_is("contractor", false) with input as claims({"contractor": null})
}

test_nothing_holds_without_a_user if {
	not user.email with input as {}
	not user.email_in(["example.com"]) with input as {}
	not user.in_group("a") with input as {}
	not user.in_any_group(["a"]) with input as {}
	not user.in_all_groups(["a"]) with input as {}
	not user.claim_is("dept", "x") with input as {}
}
