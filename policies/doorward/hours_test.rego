package doorward.hours_test

import data.doorward.hours

# noon is 12:00 in London on Friday, 2026-01-02, and 13:00 in Berlin.
noon := time.parse_rfc3339_ns("2026-01-02T12:00:00Z")

saturday := time.parse_rfc3339_ns("2026-01-03T00:30:00Z")

test_between if {
	hours.between("Europe/London", "08:00", "18:30") with time.now_ns as noon
	hours.between("Europe/London", "12:00", "12:01") with time.now_ns as noon
	not hours.between("Europe/London", "08:00", "12:00") with time.now_ns as noon
	not hours.between("Europe/Berlin", "08:00", "13:00") with time.now_ns as noon
	hours.between("Europe/Berlin", "13:00", "24:00") with time.now_ns as noon
	not hours.between("Europe/London", "12:00", "12:00") with time.now_ns as noon
}

test_between_over_midnight if {
	hours.between("UTC", "22:00", "06:00") with time.now_ns as saturday
	hours.between("UTC", "00:00", "06:00") with time.now_ns as saturday
	not hours.between("UTC", "22:00", "00:30") with time.now_ns as saturday
	not hours.between("UTC", "22:00", "06:00") with time.now_ns as noon
}

test_between_needs_times if {
	not hours.between("UTC", "8:00", "18:00") with time.now_ns as noon
	not hours.between("UTC", "08:00", "25:00") with time.now_ns as noon
	not hours.between("UTC", "", "") with time.now_ns as noon
}

test_on if {
	hours.on("UTC", ["Friday"]) with time.now_ns as noon
	not hours.on("UTC", {"Monday"}) with time.now_ns as noon
	hours.on_weekday("UTC") with time.now_ns as noon
	not hours.on_weekday("UTC") with time.now_ns as saturday
	hours.on_weekday("America/New_York") with time.now_ns as saturday
}
