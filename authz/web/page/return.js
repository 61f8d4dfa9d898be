(function () {
  "use strict";
  var next = document.getElementById("continue").href;
  try {
    var key = "doorward.return." + new URLSearchParams(location.search).get("attempt");
    var kept = new URL(sessionStorage.getItem(key) || "/", location.origin);
    sessionStorage.removeItem(key);
    if (kept.origin === location.origin) {
      // Not the path alone: a path that begins with two slashes would name another host.
      next = kept.href;
    }
  } catch (e) {
    // Storage is off, or what was kept is no URL: home it is.
  }
  location.replace(next);
})();
