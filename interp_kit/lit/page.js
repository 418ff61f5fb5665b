// LIT 1.3 fills in the generated text without telling itself that it changed, and so never draws it.
customElements.whenDefined("generated-text-module").then(() => {
  const module = customElements.get("generated-text-module").prototype;
  const updateSelection = module.updateSelection;
  module.updateSelection = async function (input) {
    await updateSelection.call(this, input);
    this.requestUpdate();
  };
});
