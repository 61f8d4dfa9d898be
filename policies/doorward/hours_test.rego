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
	not hours.between("UTC", "08:00", "24:01") with time.now_ns as noon
	not hours.between("UTC", "08:00", "18:00:00") with time.now_ns as noon
	not hours.between("UTC", "", "") with time.now_ns as noon
}

test_on if {
	hours.on("UTC", ["Friday"]) with time.now_ns as noon
	not hours.on("UTC", {"Monday"}) with time.now_ns as noon
	hours.on_weekday("UTC") with time.now_ns as noon
	not hours.on_weekday("UTC") with time.now_ns as saturday
	hours.on_weekday("America/New_York") with time.now_ns as saturday
}

test_on_needs_days if {
	not hours.on("UTC", ["friday"]) with time.now_ns as noon
	not hours.on("UTC", "Friday") with time.now_ns as noon
	not hours.on("UTC", []) with time.now_ns as noon
}

# In Berlin the clock goes from 01:59 to 03:00 on 2026-03-29, and from 02:59 back to 02:00 on 2026-10-25.
at(text) := time.parse_rfc3339_ns(text)

test_the_clock_on_the_wall_goes_forward if {
	hours.between("Europe/Berlin", "01:00", "02:00") with time.now_ns as at("2026-03-29T00:59:59Z")
	every minute in ["2026-03-29T01:00:00Z", "2026-03-29T01:59:59Z"] {
		hours.between("Europe/Berlin", "03:00", "04:00") with time.now_ns as at(minute)
		not hours.between("Europe/Berlin", "02:00", "03:00") with time.now_ns as at(minute)
	}
}

test_the_clock_on_the_wall_goes_back if {
	every minute in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
		hours.between("Europe/Berlin", "02:00", "03:00") with time.now_ns as at(minute)
	}
	not hours.between("Europe/Berlin", "02:00", "03:00") with time.now_ns as at("2026-10-25T02:00:00Z")
}

test_office_hours_in_summer_and_winter if {
	hours.between("Europe/Berlin", "08:00", "09:00") with time.now_ns as at("2026-07-01T06:30:00Z")
	hours.between("Europe/Berlin", "08:00", "09:00") with time.now_ns as at("2026-12-01T07:30:00Z")
	not hours.between("Europe/Berlin", "08:00", "09:00") with time.now_ns as at("2026-12-01T06:30:00Z")
}
