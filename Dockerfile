# The image of `annals`: docker build -t annals .
# Runs as an unprivileged user, needs no writable file system but /tmp and /data, and stops on SIGTERM.

ARG NODE_VERSION=22

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
COPY tools tools
RUN npm ci --ignore-scripts
COPY . .
RUN npm run generate && npm run build
# Optional are the binaries of the embedded PostgreSQL, of which a container has no need.
RUN npm prune --omit=dev --omit=optional --ignore-scripts

FROM node:${NODE_VERSION}-bookworm-slim
ENV NODE_ENV=production ANNALS_SPOOL_DIR=/data/spool
WORKDIR /app
COPY --from=build /src/package.json /src/prisma.config.ts ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/dist dist
COPY --from=build /src/assets assets
COPY --from=build /src/prisma prisma
COPY --from=build /src/tools tools
RUN install -d -o node -g node /data
USER node
VOLUME /data
# Whether what the container needs answers and is fit. A worker outlives outages by itself: there is
# no need to restart one that is unhealthy.
HEALTHCHECK --interval=2m --timeout=30s --start-period=1m CMD ["node", "dist/cli/main.js", "doctor"]
# In this form no shell stands between a signal and the process.
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["worker"]
