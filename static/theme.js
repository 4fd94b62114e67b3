// In the head, before the first paint: Bootstrap's colours follow the theme that the reader's system asks for.
const dark = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => (document.documentElement.dataset.bsTheme = dark.matches ? "dark" : "light");
applyTheme();
dark.addEventListener("change", applyTheme);
