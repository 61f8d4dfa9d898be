(function () {
  "use strict";
  var link = document.getElementById("continue");
  var next = link.href;
  if (location.hash.length > 1 || link.dataset.return.length > Number(link.dataset.limit)) {
    try {
      var name = Array.from(crypto.getRandomValues(new Uint8Array(16)), function (b) {
        return (b + 256).toString(16).slice(1);
      }).join("");
      sessionStorage.setItem("doorward.return." + name, link.dataset.return + location.hash);
      next = link.dataset.keep + name;
    } catch (e) {
      // Storage is off or full: the sign-in works, the fragment is lost.
    }
  }
  location.replace(next);
})();
