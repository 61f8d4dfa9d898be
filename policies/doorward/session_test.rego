package doorward.session_test

import data.doorward.session

at(seconds) := {"session": {"auth_time": seconds, "amr": ["pwd", "otp"], "acr": "silver"}}

now := 1000 * 1000000000

test_auth_age if session.auth_age == 100 with input as at(900) with time.now_ns as now

test_authenticated_within if {
	session.authenticated_within(100) with input as at(900) with time.now_ns as now
	not session.authenticated_within(99) with input as at(900) with time.now_ns as now
	session.authenticated_within(100) with input as at(1030) with time.now_ns as now
	not session.authenticated_within(100) with input as at(2000) with time.now_ns as now
	not session.authenticated_within(0) with input as at(999) with time.now_ns as now
}

test_the_future_is_a_minute_at_most if {
	session.authenticated_within(100) with input as at(1060) with time.now_ns as now
	not session.authenticated_within(100) with input as at(1061) with time.now_ns as now
}

# A number is less than every string and array, so without care these would hold for everybody.
test_seconds_are_a_number if {
	every seconds in ["100", "", [100], {"max": 100}, null, true] {
		not session.authenticated_within(seconds) with input as at(10) with time.now_ns as now
	}
}

test_unknown_time_is_not_recent if {
	not session.authenticated_within(100) with input as {"session": {}} with time.now_ns as now
	not session.authenticated_within(100) with input as {} with time.now_ns as now
}

test_amr if {
	session.amr_has_any(["mfa", "otp"]) with input as at(0)
	not session.amr_has_any(["mfa"]) with input as at(0)
	not session.amr_has_any([]) with input as at(0)
	not session.amr_has_any(["otp"]) with input as {}
	not session.amr_has_any(["otp"]) with input as {"session": {"amr": []}}
	not session.amr_has_any(["OTP"]) with input as at(0)
}

test_acr if {
	session.acr_in(["silver", "gold"]) with input as at(0)
	not session.acr_in({"gold"}) with input as at(0)
	not session.acr_in(["gold"]) with input as {"session": {}}
	not session.acr_in([]) with input as at(0)
	not session.acr_in(["sil"]) with input as at(0)
}
