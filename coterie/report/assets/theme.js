try { document.documentElement.dataset.theme = localStorage.getItem("coterie-theme") || "system"; } catch {}
