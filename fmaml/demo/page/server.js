// Requests to `fmaml demo`. Each throws an Error with a message for the user.

export const models = () => ask("models");

/** A picture (a Blob) as input of a tab's network, in base64. */
export const pixelsOf = async (tab, picture) => (await ask(`${tab}/pixels`, picture)).pixels;

/** The probabilities of the classes, {before, after}; before is null if there is none. */
export const predict = (tab, classes, query) => ask(`${tab}/predict`, JSON.stringify({ classes, query }));

async function ask(path, body) {
  const request = body === undefined ? {} : { method: "POST", body };
  const response = await fetch(path, request).catch(() => {
    throw new Error("fmaml demo does not answer; start it again, then reload this page");
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Runs a task one at a time. Calls during a run make it run once more. */
export function oneAtATime(task) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await task();
    }
    running = false;
  };
}
