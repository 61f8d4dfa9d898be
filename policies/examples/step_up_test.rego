package examples.step_up_test

import data.examples.step_up as policy

now := time.parse_rfc3339_ns("2026-01-02T11:00:00Z")

asks(path, age, amr) := {
	"user": {"id": "u"},
	"request": {"path": path},
	"session": {"auth_time": (now / 1000000000) - age, "amr": amr},
}

test_fresh_and_strong if {
	policy.allow with input as asks("/admin/users", 60, ["pwd", "otp"]) with time.now_ns as now
	count(policy.deny) == 0 with input as asks("/admin/users", 60, ["pwd", "otp"]) with time.now_ns as now
}

test_stale_or_weak_is_denied if {
	count(policy.deny) == 1 with input as asks("/admin", 1000, ["pwd", "otp"]) with time.now_ns as now
	count(policy.deny) == 1 with input as asks("/admin", 60, ["pwd"]) with time.now_ns as now
	count(policy.deny) == 2 with input as asks("/%61dmin", 1000, []) with time.now_ns as now
}

test_what_the_provider_does_not_say_is_not_done if {
	unknown := {"user": {"id": "u"}, "request": {"path": "/admin"}, "session": {"amr": []}}
	count(policy.deny) == 2 with input as unknown with time.now_ns as now
}

test_the_rest_is_open if {
	every path in ["/", "/administration", "/x/admin"] {
		policy.allow with input as asks(path, 99999, ["pwd"]) with time.now_ns as now
		count(policy.deny) == 0 with input as asks(path, 99999, ["pwd"]) with time.now_ns as now
	}
}
