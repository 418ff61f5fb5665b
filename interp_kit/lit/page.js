// @ts-check
// LIT 1.3 fills in the generated text without telling itself that it changed, and so never draws it.
customElements.whenDefined("generated-text-module").then((element) => {
  /** @type {{updateSelection(input: object | null): Promise<void>, requestUpdate(): void}} */
  const module = element.prototype;
  const updateSelection = module.updateSelection;
  module.updateSelection = async function (input) {
    await updateSelection.call(this, input);
    this.requestUpdate();
  };
});
